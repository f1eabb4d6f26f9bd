package pipeplug

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pair is two connections of this process with each other.
func pair(t *testing.T, format Format, options Options, left, right Handler) (a, b *Conn) {
	t.Helper()
	make := func(peer string, in, out *os.File, handler Handler) *Conn {
		c, err := newConn(peer, format, options, in, out, false)
		if err != nil {
			t.Fatal(err)
		}
		c.handler = handler
		if handler == nil {
			c.handler = NewMux()
		}
		c.logf = t.Logf
		c.onEnd = func(error) {
			c.closeInput()
			c.closeOutput()
		}
		offer := c.offer(ownFeatures, nil)
		c.meet(offer)
		c.flows = true
		return c
	}
	r1, w1, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a, b = make("left", r1, w2, left), make("right", r2, w1, right)
	a.start()
	b.start()
	t.Cleanup(func() {
		a.logf, b.logf = func(string, ...any) {}, func(string, ...any) {}
		a.ended(errors.New("the test is over"))
		b.ended(errors.New("the test is over"))
	})
	return a, b
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func echoMux() *Mux {
	mux := NewMux()
	mux.HandleFunc("echo", func(_ context.Context, req *Request) ([]byte, error) { return req.Data, nil })
	return mux
}

var formats = []Format{FormatStandard, FormatClassic}

func TestCallsOfAllSizes(t *testing.T) {
	for _, format := range formats {
		a, _ := pair(t, format, Options{}, nil, echoMux())
		ctx := within(t, 20*time.Second)
		for _, size := range []int{0, 1, 100, 4095, 4097, 65535, 65536, 65537, 200_000, 1 << 20, 5 << 20} {
			data := bytes.Repeat([]byte{byte(size), 0, 255}, size/3+1)[:size]
			reply, err := a.Call(ctx, "echo", data)
			if err != nil || !bytes.Equal(reply, data) {
				t.Fatalf("%v: %d bytes: %d came back, %v", format, size, len(reply), err)
			}
		}
	}
}

func TestManyCallersInBothDirections(t *testing.T) {
	for _, format := range formats {
		a, b := pair(t, format, Options{}, echoMux(), echoMux())
		ctx := within(t, 60*time.Second)
		var group sync.WaitGroup
		for i := 0; i < 64; i++ {
			for _, c := range []*Conn{a, b} {
				group.Add(1)
				go func(c *Conn, seed int64) {
					defer group.Done()
					random := rand.New(rand.NewSource(seed))
					for n := 0; n < 100; n++ {
						data := make([]byte, random.Intn(3000))
						random.Read(data)
						reply, err := c.Call(ctx, "echo", data)
						if err != nil || !bytes.Equal(reply, data) {
							t.Errorf("%v: call %d of %d: %v", format, n, seed, err)
							return
						}
					}
				}(c, int64(i))
			}
		}
		group.Wait()
	}
}

// A handler that calls the other side while it runs on the goroutine that reads.
func TestHandlersThatCallBack(t *testing.T) {
	var a, b *Conn
	left, right := echoMux(), echoMux()
	right.HandleFunc("down", func(ctx context.Context, req *Request) ([]byte, error) {
		if len(req.Data) == 0 {
			return []byte("bottom"), nil
		}
		return req.Conn().Call(ctx, "down", req.Data[1:])
	})
	left.HandleFunc("down", right.handler("down").Serve)
	a, b = pair(t, FormatStandard, Options{}, left, right)
	_ = b
	ctx := within(t, 20*time.Second)
	for i := 0; i < 200; i++ {
		reply, err := a.Call(ctx, "down", make([]byte, i%8))
		if err != nil || string(reply) != "bottom" {
			t.Fatalf("%q, %v", reply, err)
		}
	}
}

// A command whose handler has returned at once for long, and then blocks, holds up nothing.
func TestAHandlerThatBlocksAllAtOnce(t *testing.T) {
	release := make(chan struct{})
	mux := NewMux()
	mux.HandleFunc("maybe", func(_ context.Context, req *Request) ([]byte, error) {
		if string(req.Data) == "block" {
			<-release
		}
		return req.Data, nil
	})
	a, b := pair(t, FormatStandard, Options{}, nil, mux)
	ctx := within(t, 10*time.Second)
	for i := 0; i < 100 || b.inlineSeq.Load() == 0; i++ {
		if _, err := a.Call(ctx, "maybe", nil); err != nil {
			t.Fatalf("no handler ran on the goroutine that reads: %v", err)
		}
	}
	blocked, err := a.Go(ctx, "maybe", []byte("block"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Call(ctx, "maybe", []byte("x")); err != nil {
		t.Fatal(err)
	}
	close(release)
	if reply, err := blocked.Wait(); err != nil || string(reply) != "block" {
		t.Fatalf("%q, %v", reply, err)
	}
}

func TestErrorsKeepCodeMessageAndData(t *testing.T) {
	mux := NewMux()
	mux.HandleFunc("open", func(_ context.Context, req *Request) ([]byte, error) {
		return nil, fmt.Errorf("cannot open: %w", Errorf("not_found", "there is no %q", req.Data).WithData(map[string]string{"name": "x"}))
	})
	mux.HandleFunc("plain", func(context.Context, *Request) ([]byte, error) { return nil, errors.New("just text") })
	mux.HandleFunc("panic", func(context.Context, *Request) ([]byte, error) { panic("as asked") })
	mux.HandleFunc("goexit", func(context.Context, *Request) ([]byte, error) {
		runtime.Goexit()
		return nil, nil
	})
	mux.HandleFunc("huge", func(context.Context, *Request) ([]byte, error) {
		return nil, Errorf("huge", "%s", strings.Repeat("ü", 100_000))
	})
	a, b := pair(t, FormatStandard, Options{}, nil, mux)
	b.logf = func(string, ...any) {} // the stack of the panic
	ctx := within(t, 10*time.Second)

	_, err := a.Call(ctx, "open", []byte("x"))
	var e *Error
	if !errors.As(err, &e) || e.Code != "not_found" || e.Message != `cannot open: there is no "x"` || string(e.Data) != `{"name":"x"}` {
		t.Errorf("%#v", err)
	}
	_, err = a.Call(ctx, "plain", nil)
	if !errors.As(err, &e) || e.Code != "" || e.Message != "just text" {
		t.Errorf("%#v", err)
	}
	_, err = a.Call(ctx, "nothing", nil)
	if !errors.Is(err, ErrUnknownCommand) || errors.Is(err, ErrPanicked) {
		t.Errorf("%#v", err)
	}
	if !errors.As(err, &e) || !strings.Contains(string(e.Data), `"commands":["goexit","huge","open","panic","plain"]`) {
		t.Errorf("%s", e.Data)
	}
	for i := 0; i < 3; i++ {
		if _, err = a.Call(ctx, "panic", nil); !errors.Is(err, ErrPanicked) || !strings.Contains(err.Error(), "as asked") {
			t.Errorf("%#v", err)
		}
		if _, err = a.Call(ctx, "goexit", nil); !errors.As(err, &e) || e.Code != CodeUnanswered {
			t.Errorf("%#v", err)
		}
	}
	if _, err = a.Call(ctx, "huge", nil); !errors.As(err, &e) || e.Code != "huge" || !strings.HasPrefix(e.Message, "üü") {
		t.Errorf("%.200v", err)
	}
	// Without the feature the message alone goes over.
	b.features.Store(0)
	if _, err = a.Call(ctx, "open", []byte("x")); !errors.As(err, &e) || e.Code != "" || e.Message != `cannot open: there is no "x"` {
		t.Errorf("%#v", err)
	}
}

func TestReservedAndImpossibleCommands(t *testing.T) {
	a, _ := pair(t, FormatClassic, Options{}, nil, echoMux())
	ctx := within(t, 10*time.Second)
	for _, cmd := range []string{"cmd.stop", "cmd.x", "GetMetadata"} {
		if _, err := a.Call(ctx, cmd, nil); !errors.Is(err, ErrReserved) {
			t.Errorf("%s: %v", cmd, err)
		}
		if err := a.Notify(ctx, cmd, nil); !errors.Is(err, ErrReserved) {
			t.Errorf("%s: %v", cmd, err)
		}
	}
	for _, cmd := range []string{"a b", "a\x00b", "\xff", strings.Repeat("x", 70_000)} {
		if _, err := a.Call(ctx, cmd, nil); !errors.Is(err, ErrCommand) {
			t.Errorf("%.20q: %v", cmd, err)
		}
	}
	if _, err := a.Call(ctx, "echo", nil); err != nil {
		t.Error(err)
	}
}

func TestCancelDeadlineAndValues(t *testing.T) {
	ended := make(chan error, 10)
	mux := NewMux()
	mux.HandleFunc("wait", func(ctx context.Context, _ *Request) ([]byte, error) {
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		<-child.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	mux.HandleFunc("values", func(ctx context.Context, req *Request) ([]byte, error) {
		deadline, ok := ctx.Deadline()
		text, _ := json.Marshal(Values(ctx))
		return []byte(fmt.Sprintf("%s %v %v", text, ok, ok && time.Until(deadline) < 6*time.Second)), nil
	})
	mux.HandleFunc("through", func(ctx context.Context, req *Request) ([]byte, error) {
		return req.Conn().Call(ctx, "values", nil)
	})
	a, _ := pair(t, FormatStandard, Options{}, mux, mux)
	ctx := within(t, 10*time.Second)

	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := a.Call(short, "wait", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := <-ended; err == nil {
		t.Error("the handler was not told")
	}
	cancelled, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := a.Call(cancelled, "wait", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := <-ended; err != context.Canceled {
		t.Errorf("the handler was told %v", err)
	}
	call, err := a.Go(ctx, "wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	call.Cancel()
	if _, err := call.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-ended
	if _, err := a.Call(cancelled, "values", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}

	with := WithValue(WithValue(context.Background(), "a", "1"), "b", "2")
	for _, cmd := range []string{"values", "through"} {
		reply, err := a.Call(with, cmd, nil)
		if err != nil || string(reply) != `{"a":"1","b":"2"} false false` {
			t.Errorf("%s: %s, %v", cmd, reply, err)
		}
	}
	timed, cancel := context.WithTimeout(with, 5*time.Second)
	defer cancel()
	if reply, err := a.Call(timed, "through", nil); err != nil || string(reply) != `{"a":"1","b":"2"} true true` {
		t.Errorf("%s, %v", reply, err)
	}
	if _, err := a.Call(WithValue(ctx, "long", strings.Repeat("x", 5000)), "values", nil); err == nil {
		t.Error("values that are too long were sent")
	}
}

func TestProgress(t *testing.T) {
	mux := NewMux()
	mux.HandleFunc("index", func(ctx context.Context, req *Request) ([]byte, error) {
		for i := uint64(1); i <= 1000; i++ {
			req.Progress(i, 1000, "reading")
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		return nil, nil
	})
	a, _ := pair(t, FormatStandard, Options{}, nil, mux)
	ctx := within(t, 10*time.Second)
	var reports []Progress
	if _, err := a.Call(ctx, "index", nil, OnProgress(func(p Progress) { reports = append(reports, p) })); err != nil {
		t.Fatal(err)
	}
	// 100 ms of work: the first report, one in 50 ms, and the last one. Those that the user was too
	// slow for are left out.
	if n := len(reports); n < 1 || n > 30 {
		t.Fatalf("%d reports", n)
	}
	last := reports[len(reports)-1]
	if last.Done != 1000 || last.Total == nil || *last.Total != 1000 || last.Message != "reading" {
		t.Errorf("%+v", last)
	}
	if _, err := a.Call(ctx, "index", nil); err != nil {
		t.Fatal(err)
	}
	// A call-back that does not return well holds nothing up.
	logged := make(chan string, 100)
	a.logf = func(format string, args ...any) { logged <- fmt.Sprintf(format, args...) }
	for _, report := range []func(Progress){func(Progress) { panic("as asked") }, func(Progress) { runtime.Goexit() }} {
		if _, err := a.Call(ctx, "index", nil, OnProgress(report)); err != nil {
			t.Fatal(err)
		}
	}
	if text := <-logged; !strings.HasPrefix(text, "panic in the call-back for the progress: as asked\n") {
		t.Error(text)
	}
}

func TestStreamsInBothDirections(t *testing.T) {
	mux := NewMux()
	mux.HandleFunc("copy", func(_ context.Context, req *Request) ([]byte, error) {
		out, err := req.ReplyParts()
		if err != nil {
			return nil, err
		}
		n, err := io.Copy(out, req.Parts())
		return []byte(fmt.Sprint(n)), err
	})
	for _, format := range formats {
		a, _ := pair(t, format, Options{}, nil, mux)
		ctx := within(t, 30*time.Second)
		stream, err := a.Stream(ctx, "copy", nil)
		if err != nil {
			t.Fatal(err)
		}
		const size = 10 << 20
		data := make([]byte, size)
		rand.New(rand.NewSource(1)).Read(data)
		go func() {
			_, _ = stream.Out.Write(data)
			_ = stream.Out.Close()
		}()
		hash := sha256.New()
		if n, err := io.Copy(hash, stream.In); n != size || err != nil {
			t.Fatalf("%v: %d, %v", format, n, err)
		}
		if want := sha256.Sum256(data); !bytes.Equal(hash.Sum(nil), want[:]) {
			t.Errorf("%v: other bytes came back", format)
		}
		if reply, err := stream.Reply(); err != nil || string(reply) != fmt.Sprint(size) {
			t.Errorf("%v: %s, %v", format, reply, err)
		}
		if _, err := a.Call(ctx, "copy", nil); err == nil {
			t.Error("a call without a stream took parts")
		}
	}
}

func TestEndsOfStreams(t *testing.T) {
	type end struct {
		n   int
		err error
	}
	ends := make(chan end, 10)
	mux := NewMux()
	mux.HandleFunc("count", func(_ context.Context, req *Request) ([]byte, error) {
		n := 0
		for {
			_, err := req.Parts().Recv()
			if err != nil {
				ends <- end{n, err}
				if err == io.EOF {
					err = nil
				}
				return []byte(fmt.Sprint(n)), err
			}
			n++
		}
	})
	mux.HandleFunc("endless", func(_ context.Context, req *Request) ([]byte, error) {
		out, err := req.ReplyParts()
		for err == nil {
			err = out.Send([]byte("part"))
		}
		ends <- end{0, err}
		return []byte("reply"), nil
	})
	mux.HandleFunc("ignore", func(context.Context, *Request) ([]byte, error) { return nil, nil })
	mux.HandleFunc("fail", func(_ context.Context, req *Request) ([]byte, error) {
		out, _ := req.ReplyParts()
		_ = out.Send([]byte("one"))
		return nil, Errorf("broken", "no more")
	})
	a, _ := pair(t, FormatStandard, Options{}, nil, mux)
	ctx := within(t, 20*time.Second)
	open := func(ctx context.Context, cmd string) *Stream {
		t.Helper()
		s, err := a.Stream(ctx, cmd, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	s := open(ctx, "count")
	for i := 0; i < 3; i++ {
		if err := s.Out.Send(nil); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Out.Close()
	if reply, err := s.Reply(); err != nil || string(reply) != "3" {
		t.Errorf("%s, %v", reply, err)
	}
	<-ends

	s = open(ctx, "count")
	_ = s.Out.Send(nil)
	_ = s.Out.Abort("the disk is full")
	if _, err := s.Reply(); err == nil {
		t.Error("an aborted stream was complete")
	}
	if e := <-ends; e.n != 1 || !errors.Is(e.err, ErrAborted) || !strings.Contains(e.err.Error(), "the disk is full") {
		t.Errorf("%+v", e)
	}

	s = open(ctx, "endless")
	for i := 0; i < 5; i++ {
		if part, err := s.In.Recv(); err != nil || string(part) != "part" {
			t.Fatalf("%q, %v", part, err)
		}
	}
	s.In.Enough("five are enough")
	if e := <-ends; !errors.Is(e.err, ErrEnough) || !strings.Contains(e.err.Error(), "five are enough") {
		t.Errorf("%+v", e)
	}
	if reply, err := s.Reply(); err != nil || string(reply) != "reply" {
		t.Errorf("%s, %v", reply, err)
	}

	cancelled, cancel := context.WithCancel(ctx)
	s = open(cancelled, "endless")
	if _, err := s.In.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Reply(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if e := <-ends; !errors.Is(e.err, context.Canceled) {
		t.Errorf("%+v", e)
	}

	s = open(ctx, "ignore")
	if _, err := s.Reply(); err != nil {
		t.Error(err)
	}
	if err := s.Out.Send(nil); !errors.Is(err, ErrEnough) || !strings.Contains(err.Error(), "takes no parts") {
		t.Errorf("%v", err)
	}

	s = open(ctx, "fail")
	if part, err := s.In.Recv(); err != nil || string(part) != "one" {
		t.Errorf("%q, %v", part, err)
	}
	var e *Error
	if _, err := s.In.Recv(); !errors.As(err, &e) || e.Code != "broken" {
		t.Errorf("%v", err)
	}

	w, err := a.NotifyStream(ctx, "count", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Send(nil)
	_ = w.Send(nil)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if e := <-ends; e.n != 2 || e.err != io.EOF {
		t.Errorf("%+v", e)
	}
}

// A receiver that takes nothing holds up its own sender, and nothing else.
func TestASlowStreamHoldsUpNothingElse(t *testing.T) {
	release := make(chan struct{})
	mux := echoMux()
	mux.HandleFunc("slow", func(_ context.Context, req *Request) ([]byte, error) {
		<-release
		n, err := io.Copy(io.Discard, req.Parts())
		return []byte(fmt.Sprint(n)), err
	})
	a, b := pair(t, FormatStandard, Options{StreamWindow: 10_000}, nil, mux)
	ctx := within(t, 10*time.Second)
	s, err := a.Stream(ctx, "slow", nil)
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int32
	go func() {
		for i := 0; i < 100; i++ {
			_ = s.Out.Send(make([]byte, 1000))
			sent.Add(1)
		}
		_ = s.Out.Close()
	}()
	for i := 0; i < 200; i++ {
		if _, err := a.Call(ctx, "echo", nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := sent.Load(); n > 11 {
		t.Errorf("%d parts were sent into a window of 10", n)
	}
	b.mu.Lock()
	for _, r := range b.requests {
		if r.parts != nil && r.parts.received > 12_000 {
			t.Errorf("%d bytes of parts are held", r.parts.received)
		}
	}
	b.mu.Unlock()
	close(release)
	if reply, err := s.Reply(); err != nil || string(reply) != "100000" {
		t.Errorf("%s, %v", reply, err)
	}
}

// One-ways that are not taken hold up their sender, who gives up with its context.
func TestFlowHoldsASenderUp(t *testing.T) {
	release := make(chan struct{})
	var taken atomic.Int32
	mux := echoMux()
	mux.HandleFunc("slow", func(context.Context, *Request) ([]byte, error) {
		<-release
		taken.Add(1)
		return nil, nil
	})
	a, b := pair(t, FormatStandard, Options{Window: 20_000, MaxHandlers: 2}, nil, mux)
	ctx := within(t, 10*time.Second)
	sent := 0
	for {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		err := a.Notify(short, "slow", make([]byte, 1000))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if sent++; sent > 100 {
			t.Fatal("nothing held the sender up")
		}
	}
	b.mu.Lock()
	waits := b.waitingSize
	b.mu.Unlock()
	if waits > 25_000 {
		t.Errorf("%d bytes wait", waits)
	}
	close(release)
	for i := sent; i < 100; i++ {
		if err := a.Notify(ctx, "slow", make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Call(ctx, "echo", nil); err != nil {
		t.Fatal(err)
	}
	for taken.Load() != 100 {
		if ctx.Err() != nil {
			t.Fatalf("%d were taken", taken.Load())
		}
		time.Sleep(time.Millisecond)
	}
}

// Both sides send more than any pipe holds, and neither reads a reply before that.
func TestBothSidesSendMuch(t *testing.T) {
	a, b := pair(t, FormatStandard, Options{}, echoMux(), echoMux())
	ctx := within(t, 30*time.Second)
	var group sync.WaitGroup
	for _, c := range []*Conn{a, b} {
		for i := 0; i < 8; i++ {
			group.Add(1)
			go func(c *Conn) {
				defer group.Done()
				data := make([]byte, 3<<20)
				if reply, err := c.Call(ctx, "echo", data); err != nil || len(reply) != len(data) {
					t.Errorf("%d, %v", len(reply), err)
				}
			}(c)
		}
	}
	group.Wait()
}

func TestLimits(t *testing.T) {
	a, b := pair(t, FormatStandard, Options{BufferLimit: 1000, CommandLimit: 100}, nil, echoMux())
	var logged atomic.Int32
	b.logf = func(string, ...any) { logged.Add(1) }
	ctx := within(t, 10*time.Second)
	if _, err := a.Call(ctx, "echo", make([]byte, 1001)); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "1001 bytes is over the limit of 1000") {
		t.Errorf("%v", err)
	}
	if _, err := a.Call(ctx, strings.Repeat("x", 101), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
	if err := a.Notify(ctx, "echo", make([]byte, 1001)); err != nil {
		t.Error(err)
	}
	if _, err := a.Call(ctx, "echo", make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	if logged.Load() != 1 {
		t.Errorf("%d lines were logged of one one-way", logged.Load())
	}
}

func TestTheEndFailsAllCalls(t *testing.T) {
	block, release := NewMux(), make(chan struct{})
	defer close(release)
	block.HandleFunc("wait", func(context.Context, *Request) ([]byte, error) {
		<-release
		return nil, nil
	})
	a, b := pair(t, FormatStandard, Options{}, nil, block)
	ctx := within(t, 10*time.Second)
	results := make(chan error, 20)
	for i := 0; i < 10; i++ {
		go func() {
			_, err := a.Call(ctx, "wait", nil)
			results <- err
		}()
	}
	s, err := a.Stream(ctx, "wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := s.In.Recv()
		results <- err
	}()
	if err := a.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	b.ended(errors.New("the test wants it"))
	for i := 0; i < 11; i++ {
		if err := <-results; !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	if _, err := a.Call(ctx, "wait", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := a.Notify(ctx, "wait", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	<-a.Done()
	if !errors.Is(a.Err(), ErrClosed) {
		t.Errorf("%v", a.Err())
	}
}

func TestIdleConnectionLeavesNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := 0; i < 20; i++ {
		a, b := pair(t, FormatStandard, Options{}, echoMux(), echoMux())
		if _, err := a.Call(context.Background(), "echo", nil); err != nil {
			t.Fatal(err)
		}
		if err := b.Notify(context.Background(), "echo", nil); err != nil {
			t.Fatal(err)
		}
		a.ended(errors.New("over"))
		<-b.Done()
	}
	for i := 0; runtime.NumGoroutine() > before+2; i++ {
		if i > 500 {
			text := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, text[:runtime.Stack(text, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestCommandsInOrder(t *testing.T) {
	var mu sync.Mutex
	var handled []string
	mux := echoMux()
	record := func(_ context.Context, req *Request) ([]byte, error) {
		if len(req.Data)%3 == 0 {
			time.Sleep(time.Millisecond)
		}
		mu.Lock()
		handled = append(handled, string(req.Data))
		mu.Unlock()
		return nil, nil
	}
	mux.HandleFunc("append", record)
	mux.HandleFunc("clear", record)
	a, _ := pair(t, FormatStandard, Options{MaxHandlers: 3, InOrder: [][]string{{"append", "clear"}, {"other"}}}, nil, mux)
	ctx := within(t, 20*time.Second)
	var calls []*Pending
	for i := 0; i < 300; i++ {
		cmd := "append"
		if i%7 == 0 {
			cmd = "clear"
		}
		call, err := a.Go(ctx, cmd, []byte(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call)
		if i%50 == 0 {
			if _, err := a.Call(ctx, "echo", nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, call := range calls {
		if _, err := call.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range handled {
		if text != fmt.Sprint(i) {
			t.Fatalf("%s was handled as number %d", text, i)
		}
	}
}

// A peer that takes nothing keeps a call neither from being given up, nor from being read while it
// changes its data.
func TestALargeCallToAPeerThatDoesNotRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	never, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	c, err := newConn("peer", FormatStandard, Options{}, never, w, false)
	if err != nil {
		t.Fatal(err)
	}
	c.handler = NewMux()
	c.start()
	defer c.ended(errors.New("the test is over"))
	data := bytes.Repeat([]byte{7}, 3<<20)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := c.Call(ctx, "echo", data); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "given up") {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	for i := range data {
		data[i] = 8
	}
	sent := make([]byte, 3<<20)
	header := appendHeader(nil, FormatStandard, 1, request, "echo", len(data))
	if _, err := io.ReadFull(r, sent[:len(header)]); err != nil || !bytes.Equal(sent[:len(header)], header) {
		t.Fatalf("%q, %v", sent[:len(header)], err)
	}
	if _, err := io.ReadFull(r, sent); err != nil || !bytes.Equal(sent, bytes.Repeat([]byte{7}, 3<<20)) {
		t.Errorf("other bytes were sent, %v", err)
	}
}

// What a peer has written before it went is read, also if a write has failed meanwhile.
func TestAReplyBeforeABrokenPipe(t *testing.T) {
	fromHost, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in, toHost, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConn("peer", FormatStandard, Options{}, in, out, false)
	if err != nil {
		t.Fatal(err)
	}
	c.handler = NewMux()
	c.start()
	ctx := within(t, 20*time.Second)
	call, err := c.Go(ctx, "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.w.flush()
	if _, err := io.ReadFull(fromHost, make([]byte, len(appendHeader(nil, FormatStandard, 1, request, "echo", 0)))); err != nil {
		t.Fatal(err)
	}
	_ = fromHost.Close()
	_ = c.Notify(ctx, "note", nil)
	for broken := false; !broken; time.Sleep(time.Millisecond) {
		c.w.mu.Lock()
		broken = c.w.err != nil
		c.w.mu.Unlock()
	}
	_, _ = toHost.Write(append(appendHeader(nil, FormatStandard, 1, response, "echo", 5), "reply"...))
	_ = toHost.Close()
	if reply, err := call.Wait(); err != nil || string(reply) != "reply" {
		t.Errorf("%q, %v", reply, err)
	}
	if _, err := c.Call(ctx, "echo", nil); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}
