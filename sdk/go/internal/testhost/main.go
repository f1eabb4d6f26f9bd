// Command testhost is the host of the checks: it starts a plugin, calls it in several ways, and stops
// it.
//
//	testhost [-classic] [-stdio] PLUGIN
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

func main() {
	classic := flag.Bool("classic", false, "speak the classic format")
	stdio := flag.Bool("stdio", false, "use the plugin's stdin and stdout")
	flag.Parse()
	if err := run(*classic, *stdio, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "testhost:", err)
		os.Exit(1)
	}
}

func run(classic, stdio bool, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	host := pipeplug.Host{Stdio: stdio}
	if classic {
		host.Format = pipeplug.FormatClassic
	}
	plugin, err := host.Start(ctx, path)
	if err != nil {
		return err
	}
	for _, text := range []string{"one", "two"} {
		if _, err := plugin.Call(ctx, "echo", []byte(text)); err != nil {
			fmt.Fprintln(os.Stderr, "testhost: echo:", err)
		}
	}
	with := pipeplug.WithValue(ctx, "traceparent", "00-1")
	for i := 0; i < 3; i++ {
		if err := plugin.Notify(with, "note", []byte("text")); err != nil {
			fmt.Fprintln(os.Stderr, "testhost: note:", err)
		}
	}
	if _, err := plugin.Call(with, "echo", nil, pipeplug.OnProgress(func(pipeplug.Progress) {})); err != nil {
		fmt.Fprintln(os.Stderr, "testhost: echo:", err)
	}
	return plugin.Stop(ctx)
}
