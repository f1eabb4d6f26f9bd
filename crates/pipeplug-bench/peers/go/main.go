// hashicorp/go-plugin over net/rpc (`netrpc`) and gRPC (`grpc`), both as the library comes: the host starts
// this executable again as its plugin.
//
// The contract with the benchmark's driver is that of the Rust peers, ../rust/contract.
package main

import (
	"fmt"
	"os"

	plugin "github.com/hashicorp/go-plugin"
)

const name = "echo"

var handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "PIPEPLUG_BENCH",
	MagicCookieValue: "go-plugin",
}

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("expected host or plugin, and netrpc or grpc"))
	}
	role, mode := os.Args[1], os.Args[2]
	if mode != "netrpc" && mode != "grpc" {
		fail(fmt.Errorf("expected mode netrpc or grpc, got %q", mode))
	}
	switch role {
	case "host":
		if err := host(func() (*peer, error) { return start(mode) }); err != nil {
			fail(err)
		}
	case "plugin":
		handler, err := handlerFromEnv()
		if err != nil {
			fail(err)
		}
		serve(mode, handler)
	default:
		fail(fmt.Errorf("expected host or plugin, got %q", role))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
