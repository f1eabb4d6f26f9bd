// Command host makes 5,000 calls at once while its plugin makes 5,000 back.
//
//	host PLUGIN
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

const (
	dockerHost = "unix:///var/run/docker.sock"
	calls      = 5000
	workers    = 8
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: host PLUGIN")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "host:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	done := make(chan string, 1)
	mux := pipeplug.NewMux()
	mux.HandleFunc("GetDockerHost", func(context.Context, *pipeplug.Request) ([]byte, error) {
		return []byte(dockerHost), nil
	})
	mux.HandleFunc("Repeat", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		return []byte(strings.Repeat(string(req.Data), 2)), nil
	})
	mux.HandleFunc("Done", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		done <- string(req.Data)
		return nil, nil
	})
	host := pipeplug.Host{Handler: mux}
	plugin, err := host.Start(ctx, path)
	if err != nil {
		return err
	}
	defer plugin.Kill()

	// From here on the plugin calls back, and is answered while this side makes its own calls.
	started, err := plugin.Go(ctx, "Start", []byte(fmt.Sprint(calls)))
	if err != nil {
		return err
	}
	results := make(chan error, workers)
	for worker := 0; worker < workers; worker++ {
		go func(first int) { results <- echo(ctx, plugin, first) }(worker * calls / workers)
	}
	for worker := 0; worker < workers; worker++ {
		if err := <-results; err != nil {
			return err
		}
	}
	if _, err := started.Wait(); err != nil {
		return err
	}
	// A one-way has no reply, so its handler signals the end.
	var repeats string
	select {
	case repeats = <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	told, err := plugin.Call(ctx, "DockerHost", nil)
	if err != nil {
		return err
	}
	if repeats != fmt.Sprint(calls) || string(told) != dockerHost {
		return fmt.Errorf("the plugin had %s replies and was told %s", repeats, told)
	}
	if err := plugin.Stop(ctx); err != nil {
		return err
	}
	fmt.Printf("sample1: %d Echo, %s Repeat, docker host %s, done\n", calls, repeats, told)
	return nil
}

// echo begins its calls before it waits for the first, so that they are in flight together.
func echo(ctx context.Context, plugin *pipeplug.Plugin, first int) error {
	var pending []*pipeplug.Pending
	for i := first; i < first+calls/workers; i++ {
		call, err := plugin.Go(ctx, "Echo", []byte(fmt.Sprintf("echo %d", i)))
		if err != nil {
			return err
		}
		pending = append(pending, call)
	}
	for i, call := range pending {
		reply, err := call.Wait()
		if err != nil {
			return err
		}
		if text := fmt.Sprintf("echo %d", first+i); string(reply) != text {
			return fmt.Errorf("Echo of %q brought %q", text, reply)
		}
	}
	return nil
}
