// Command plugin asks the host for the Docker host when it starts, then answers and calls back.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

func main() {
	var dockerHost []byte
	mux := pipeplug.NewMux()
	mux.HandleFunc("Echo", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		return req.Data, nil
	})
	mux.HandleFunc("Start", repeat)
	mux.HandleFunc("DockerHost", func(context.Context, *pipeplug.Request) ([]byte, error) {
		return dockerHost, nil
	})
	guest := pipeplug.Guest{
		Handler: mux,
		// Runs before the first request comes in, so the handlers find the answer.
		Start: func(ctx context.Context, host *pipeplug.Conn) (err error) {
			if dockerHost, err = host.Call(ctx, "GetDockerHost", nil); err == nil {
				fmt.Fprintf(os.Stderr, "sample1-plugin: the docker host is %s\n", dockerHost)
			}
			return err
		},
	}
	guest.Main()
}

// repeat calls the host as often as it asks for, all at once, and sends it a one-way after the last
// reply.
func repeat(ctx context.Context, req *pipeplug.Request) ([]byte, error) {
	count, err := strconv.Atoi(string(req.Data))
	if err != nil {
		return nil, err
	}
	host := req.Conn()
	calls := make([]*pipeplug.Pending, count)
	for i := range calls {
		if calls[i], err = host.Go(ctx, "Repeat", []byte(fmt.Sprintf("repeat %d.", i))); err != nil {
			return nil, err
		}
	}
	for i, call := range calls {
		reply, err := call.Wait()
		if err != nil {
			return nil, err
		}
		if text := fmt.Sprintf("repeat %d.", i); string(reply) != strings.Repeat(text, 2) {
			return nil, fmt.Errorf("Repeat of %q brought %q", text, reply)
		}
	}
	return nil, host.Notify(ctx, "Done", req.Data)
}
