// Command testguest is the plugin of the checks: echo also returns the parts of a stream, sleep
// reports its progress.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

func main() {
	mux := pipeplug.NewMux()
	mux.HandleFunc("echo", echo)
	mux.HandleFunc("sleep", sleep)
	mux.HandleFunc("print", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		fmt.Println("a stray line")
		fmt.Fprintln(os.Stderr, "a line for people")
		return req.Data, nil
	})
	mux.HandleFunc("panic", func(context.Context, *pipeplug.Request) ([]byte, error) { panic("as asked") })
	mux.HandleFunc("fail", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		return nil, fmt.Errorf("cannot open: %w", pipeplug.Errorf("not_found", "there is no %q", req.Data).WithData(map[string]string{"name": string(req.Data)}))
	})
	mux.HandleFunc("exit", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		os.Exit(3)
		return nil, nil
	})
	mux.HandleFunc("ask", func(ctx context.Context, req *pipeplug.Request) ([]byte, error) {
		cmd, data, _ := bytes.Cut(req.Data, []byte(" "))
		return req.Conn().Call(ctx, string(cmd), data)
	})
	mux.HandleFunc("config", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		var config json.RawMessage
		err := req.Conn().Config(&config)
		return config, err
	})
	mux.HandleFunc("values", func(ctx context.Context, _ *pipeplug.Request) ([]byte, error) {
		return json.Marshal(pipeplug.Values(ctx))
	})
	mux.HandleFunc("one-ways", func(ctx context.Context, req *pipeplug.Request) ([]byte, error) {
		n, _ := strconv.Atoi(string(req.Data))
		for i := 0; i < n; i++ {
			if err := req.Conn().Notify(ctx, "tick", make([]byte, 1000)); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	guest := pipeplug.Guest{Handler: mux, LogLevel: func(string) {}, InterfaceVersions: []uint32{1, 2}}
	guest.Main()
}

func echo(_ context.Context, req *pipeplug.Request) ([]byte, error) {
	parts, err := req.ReplyParts()
	if err != nil {
		return req.Data, nil
	}
	for {
		part, err := req.Parts().Recv()
		if err == io.EOF {
			return req.Data, nil
		}
		if err != nil {
			return nil, err
		}
		if err := parts.Send(part); errors.Is(err, pipeplug.ErrEnough) {
			return req.Data, nil
		} else if err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, req *pipeplug.Request) ([]byte, error) {
	ms, err := strconv.Atoi(string(req.Data))
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < time.Duration(ms)*time.Millisecond; {
		req.Progress(uint64(time.Since(began).Milliseconds()), uint64(ms), "sleeping")
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return []byte("slept"), nil
}
