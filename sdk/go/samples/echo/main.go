// Command echo is the smallest plugin: echo says back what it is told, upper says it louder, log
// writes it to standard error.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

func main() {
	mux := pipeplug.NewMux()
	mux.HandleFunc("echo", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		return req.Data, nil
	})
	mux.HandleFunc("upper", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		return bytes.ToUpper(req.Data), nil
	})
	mux.HandleFunc("log", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		fmt.Fprintf(os.Stderr, "%s\n", req.Data)
		return nil, nil
	})
	guest := pipeplug.Guest{
		Handler:  mux,
		Metadata: map[string]string{"Description": "says back what it is told"},
	}
	guest.Main()
}
