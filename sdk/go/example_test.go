package pipeplug_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

// A plugin with a start call-back, a configuration, and an error with a code.
func ExampleGuest() {
	var settings struct{ Dir string }
	mux := pipeplug.NewMux()
	mux.HandleFunc("open", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		text, err := os.ReadFile(settings.Dir + "/" + string(req.Data))
		if errors.Is(err, os.ErrNotExist) {
			return nil, pipeplug.Errorf("not_found", "there is no note %q", req.Data)
		}
		return text, err
	})
	guest := pipeplug.Guest{
		Handler:  mux,
		Metadata: map[string]string{"Description": "keeps notes"},
		Start: func(_ context.Context, host *pipeplug.Conn) error {
			return host.Config(&settings)
		},
	}
	guest.Main()
}

// A host that gives its plugin a configuration and answers it.
func ExampleHost() {
	mux := pipeplug.NewMux()
	mux.HandleFunc("user", func(context.Context, *pipeplug.Request) ([]byte, error) {
		return []byte(os.Getenv("USER")), nil
	})
	host := pipeplug.Host{Handler: mux, Config: map[string]string{"dir": "/tmp"}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	plugin, err := host.Start(ctx, "./notes")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer plugin.Stop(ctx)
	note, err := plugin.Call(ctx, "open", []byte("todo"))
	var failure *pipeplug.Error
	switch {
	case errors.As(err, &failure) && failure.Code == "not_found":
		fmt.Println("no such note")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Printf("%s\n", note)
	}
}

// A file goes through a plugin, and comes back.
func ExampleConn_Stream() {
	ctx := context.Background()
	plugin, err := pipeplug.Start(ctx, "./upper")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer plugin.Stop(ctx)
	stream, err := plugin.Stream(ctx, "upper", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		if _, err := io.Copy(stream.Out, strings.NewReader("a large text")); err == nil {
			_ = stream.Out.Close()
		}
	}()
	if _, err := io.Copy(os.Stdout, stream.In); err != nil {
		fmt.Println(err)
	}
	if _, err := stream.Reply(); err != nil {
		fmt.Println(err)
	}
}

// The handler of a stream.
func ExampleRequest_Parts() {
	mux := pipeplug.NewMux()
	mux.HandleFunc("upper", func(_ context.Context, req *pipeplug.Request) ([]byte, error) {
		out, err := req.ReplyParts()
		if err != nil {
			return nil, err
		}
		for {
			part, err := req.Parts().Recv()
			if err == io.EOF {
				return nil, nil // completes the parts of the reply
			}
			if err != nil {
				return nil, err
			}
			if err := out.Send(bytes.ToUpper(part)); err != nil {
				return nil, err
			}
		}
	})
	pipeplug.Main(mux)
}
