package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestErrorsAreShownWithCodeAndData(t *testing.T) {
	for want, e := range map[string]*Error{
		`there is no "x" (not_found, {"name":"x"})`: Errorf("not_found", "there is no %q", "x").WithData(map[string]string{"name": "x"}),
		`there is no "x" (not_found)`:               Errorf("not_found", "there is no %q", "x"),
		`not_found`:                                 {Code: "not_found"},
		`not_found (7)`:                             {Code: "not_found", Data: []byte("7")},
		`text`:                                      {Message: "text"},
		`text ([1,2])`:                              {Message: "text", Data: []byte("[1,\n 2]")},
		`text (` + strings.Repeat("7", maxDataShown) + `…)`: {Message: "text", Data: []byte(strings.Repeat("7", 9000))},
	} {
		if e.Error() != want {
			t.Errorf("%s\nwant %s", e, want)
		}
	}
}

// The message that goes over has neither code nor data in it, however often the error is passed on.
func TestAnErrorThatIsPassedOnKeepsItsMessage(t *testing.T) {
	mux := NewMux()
	mux.HandleFunc("fail", func(ctx context.Context, req *Request) ([]byte, error) {
		if len(req.Data) > 0 {
			_, err := req.Conn().Call(ctx, "fail", req.Data[1:])
			return nil, fmt.Errorf("%d: %w", len(req.Data), err)
		}
		return nil, Errorf("not_found", "no page").WithData([]int{1, 2})
	})
	for _, features := range []uint32{ownFeatures, 0} {
		a, b := pair(t, FormatStandard, Options{}, mux, mux)
		a.features.Store(features)
		b.features.Store(features)
		_, err := a.Call(within(t, 1e10), "fail", []byte("xxx"))
		var e *Error
		if !errors.As(err, &e) || e.Message != "3: 2: 1: no page" {
			t.Fatalf("%#v", err)
		}
		if features != 0 && err.Error() != "3: 2: 1: no page (not_found, [1,2])" {
			t.Errorf("%v", err)
		}
	}
}

func panics(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		if text := fmt.Sprint(recover()); !strings.Contains(text, want) {
			t.Errorf("%s\nwant %s", text, want)
		}
	}()
	f()
}

func TestWhatCannotBeIsRefusedWhereItIsMade(t *testing.T) {
	for _, code := range []string{"Not_found", "not found", "not-found", "_", "a__b", "a_", "_a", "nö", "404", "a\n"} {
		panics(t, "lowercase words joined by _", func() { _ = Errorf(code, "text") })
	}
	for _, code := range []string{"", "a", "not_found", "http_404", "e2big"} {
		if e := Errorf(code, "text"); e.Code != code {
			t.Errorf("%q", e.Code)
		}
	}
	handler := HandlerFunc(func(context.Context, *Request) ([]byte, error) { return nil, nil })
	panics(t, "is nil", func() { NewMux().Handle("x", nil) })
	panics(t, "is nil", func() { NewMux().HandleFunc("x", nil) })
	panics(t, "Guest.Metadata", func() { NewMux().Handle("GetMetadata", handler) })
	panics(t, "belongs to the protocol", func() { NewMux().Handle("cmd.stop", handler) })
	panics(t, "two handlers", func() {
		mux := NewMux()
		mux.Handle("x", handler)
		mux.Handle("x", handler)
	})
	panics(t, `two methods "greet"`, func() { NewService("a", 1).Register(greets{}).Register(greets{}) })
	panics(t, "no methods", func() { NewService("a", 1).Register(7) })
	panics(t, "got nil", func() { NewService("a", 1).Register(nil) })
	panics(t, "lowercase letters", func() { NewService("A", 1) })
	panics(t, "has no method", func() { NewService("a", 1).Lookup("x") })
}

type greets struct{}

func (greets) Greet(context.Context) (string, error) { return "", nil }

func TestAServiceThatIsNotThere(t *testing.T) {
	a, _ := pair(t, FormatStandard, Options{}, nil, nil)
	for offered, want := range map[string]string{
		"":                    `left has no service "notes": it has none`,
		"calc/1 spell/2-3":    `left has no service "notes": it has calc/1, spell/2-3`,
		"note/1 notes2/2\x1b": `left has no service "notes": it has note/1, notes2/2\x1b`,
	} {
		a.mu.Lock()
		a.peerMetadata = map[string]string{keyServices: offered}
		a.mu.Unlock()
		if _, err := NewClient(a, "notes", 1); !errors.Is(err, ErrUnsupported) || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// badError is an error whose methods do what they like.
type badError struct{ text, unwrap func() }

func (e *badError) Error() string {
	if e.text != nil {
		e.text()
	}
	return "bad"
}

func (e *badError) Unwrap() error {
	if e.unwrap != nil {
		e.unwrap()
	}
	return nil
}

type badValue struct{}

func (badValue) Error() string { panic("in Error") }

func (badValue) MarshalJSON() ([]byte, error) { panic("in MarshalJSON") }

// The methods of what a handler returns are the user's code, too: what they do is the error of the call.
func TestErrorsWhoseMethodsPanic(t *testing.T) {
	errs := map[string]func() error{
		"text":   func() error { return badValue{} },
		"nil":    func() error { return (*badError)(nil) },
		"own":    func() error { return (*Error)(nil) },
		"within": func() error { return fmt.Errorf("within: %w", (*Error)(nil)) },
		"unwrap": func() error { return &badError{unwrap: func() { panic("in Unwrap") }} },
		"goexit": func() error { return &badError{text: runtime.Goexit} },
		"data":   func() error { return Errorf("code", "text").WithData(badValue{}) },
		"panic":  func() error { panic(badValue{}) },
		"fine":   func() error { return &badError{} },
	}
	mux := NewMux()
	for name, err := range errs {
		err := err
		mux.HandleFunc(name, func(context.Context, *Request) ([]byte, error) { return nil, err() })
	}
	a, b := pair(t, FormatStandard, Options{}, nil, mux)
	logged := make(chan string, 100)
	b.logf = func(format string, args ...any) { logged <- fmt.Sprintf(format, args...) }
	ctx := within(t, 10e9)
	for i := 0; i < 12; i++ { // some of them on the goroutine that reads
		for name, want := range map[string]string{
			"text":   "the handler panicked: in Error (panicked)",
			"nil":    "the handler panicked: its error is a nil *pipeplug.badError, which is not nil as an error: return nil itself (panicked)",
			"own":    "the handler panicked: its error is a nil *pipeplug.Error, which is not nil as an error: return nil itself (panicked)",
			"within": "within: <nil>",
			"unwrap": "the handler panicked: in Unwrap (panicked)",
			"goexit": "the handler ended without an answer (unanswered)",
			"data":   "the handler panicked: in MarshalJSON (panicked)",
			"panic":  "the handler panicked: %!v(PANIC=Error method: in Error) (panicked)",
			"fine":   "bad",
		} {
			if _, err := a.Call(ctx, name, nil); err == nil || err.Error() != want {
				t.Errorf("%s: %v\nwant %s", name, err, want)
			}
			for len(logged) > 0 {
				<-logged
			}
		}
	}
	for name, want := range map[string]string{"text": "in Error", "nil": "a nil *pipeplug.badError"} {
		if err := a.Notify(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
		if text := <-logged; !strings.Contains(text, "panic in the handler") || !strings.Contains(text, want) {
			t.Error(text)
		}
		<-logged // that the one-way has failed
	}
	if _, err := a.Call(ctx, "fine", nil); err == nil || err.Error() != "bad" {
		t.Error(err)
	}
}

// A panic in the call-back of the log's level is told in the log.
func TestALogLevelThatPanics(t *testing.T) {
	a, b := pair(t, FormatStandard, Options{}, nil, HandlerFunc(func(context.Context, *Request) ([]byte, error) { return nil, nil }))
	logged := make(chan string, 100)
	b.logf = func(format string, args ...any) { logged <- fmt.Sprintf(format, args...) }
	b.logLevel = func(string) { panic("as asked") }
	a.w.put(FormatStandard, 0, oneWay, cmdLogLevel, []byte("debug"), true)
	if _, err := a.Call(within(t, 10e9), "x", nil); err != nil {
		t.Error(err)
	}
	if text := <-logged; !strings.HasPrefix(text, "panic in the call-back for the log level: as asked\n") {
		t.Error(text)
	}
}
