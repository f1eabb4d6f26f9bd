// Package pipeplug is a library for plugins in processes of their own: a host starts an executable,
// and both sides call each other over two pipes. It is both sides, and speaks with those of any other
// language; docs/protocol.md of the repository specifies the protocol.
//
// A plugin has a Handler, such as a Mux, and ends its main with Main:
//
//	mux := pipeplug.NewMux()
//	mux.HandleFunc("upper", func(ctx context.Context, req *pipeplug.Request) ([]byte, error) {
//		return bytes.ToUpper(req.Data), nil
//	})
//	pipeplug.Main(mux)
//
// A host starts it, calls it, and stops it:
//
//	plugin, err := pipeplug.Start(ctx, "./plugin")
//	…
//	reply, err := plugin.Call(ctx, "upper", []byte("hello"))
//	…
//	err = plugin.Stop(ctx)
//
// The fields of Guest and Host have the settings. A Conn, which both sides have, has the calls.
//
// # Contexts
//
// The deadline of a call's context goes to the handler, whose context has it as well, and the end of
// the context ends the handler's. So a handler that calls on with its context is given up with its
// own caller. Values of WithValue go along. A reply that arrives after the end of the context is dropped,
// and the call fails with the context's error.
//
// # Errors
//
// A call fails with an *Error if the other side has answered with one, with the error of its context,
// or with ErrClosed; all are found by errors.Is and errors.As in what is returned. A call that
// failed with ErrClosed may have been handled or not. A StartError says why a plugin did not start, and
// an ExitError how one has ended.
//
// # Goroutines
//
// Handlers run concurrently, each request on a goroutine of its own or, if its command has returned
// at once so far, on the one that reads. A handler may block, and call the other side. Options.InOrder
// names commands that must not overtake each other.
package pipeplug
