// The plugin {{name}}.
package main

import (
	"fmt"
	"os"
)

const metadata = `{
	"Cmd": "hello",
	"Description": "greets whom it is told",
	"pipeplug.name": "{{name}}",
	"pipeplug.version": "0.1.0"
}`

// answer answers a request, on a goroutine of its own. An error goes to the caller.
func answer(command string, data []byte) ([]byte, error) {
	switch command {
	case "hello":
		return append([]byte("hello, "), data...), nil
	default:
		return nil, fmt.Errorf("unknown command %q, there is only hello", command)
	}
}

func main() {
	if err := Serve(answer, []byte(metadata)); err != nil {
		fmt.Fprintln(os.Stderr, "the connection has ended:", err)
		os.Exit(1)
	}
}
