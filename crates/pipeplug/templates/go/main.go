// The plugin {{name}}.
package main

import (
	"context"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

// hello handles a request, on a goroutine of its own. An error goes to the caller.
func hello(_ context.Context, req *pipeplug.Request) ([]byte, error) {
	return append([]byte("hello, "), req.Data...), nil
}

func main() {
	mux := pipeplug.NewMux()
	mux.HandleFunc("hello", hello)
	guest := pipeplug.Guest{
		Handler: mux,
		Metadata: map[string]string{
			"Cmd":              "hello",
			"Description":      "greets whom it is told",
			"pipeplug.name":    "{{name}}",
			"pipeplug.version": "0.1.0",
		},
	}
	guest.Main()
}
