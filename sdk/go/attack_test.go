package pipeplug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soon waits for a channel, and fails the test if it stays open.
func soon[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s: not within 5 s", what)
	}
}

func TestTheEndOfAContextCancelsAStreamThatIsNotAwaited(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	a, _ := pair(t, FormatStandard, Options{}, nil, HandlerFunc(func(ctx context.Context, _ *Request) ([]byte, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, nil
	}))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := a.Stream(ctx, "wait", nil); err != nil {
		t.Fatal(err)
	}
	soon(t, "the handler begins", began)
	cancel()
	soon(t, "the handler is told", ended)
	if open := a.openCalls.Load(); open != 0 {
		t.Errorf("%d calls are open", open)
	}
}

func TestTheEndOfAContextCompletesACallWithoutWait(t *testing.T) {
	a, _ := pair(t, FormatStandard, Options{}, nil, HandlerFunc(func(ctx context.Context, _ *Request) ([]byte, error) {
		<-ctx.Done()
		return nil, nil
	}))
	ctx, cancel := context.WithCancel(context.Background())
	call, err := a.Go(ctx, "wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	done := call.Done()
	cancel()
	soon(t, "the call is done", done)
	if _, err := call.Wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTheEndOfAContextEndsAOneWayStream(t *testing.T) {
	results := make(chan error, 2)
	a, _ := pair(t, FormatStandard, Options{StreamWindow: 100}, nil, HandlerFunc(func(_ context.Context, req *Request) ([]byte, error) {
		if req.Command == "slow" {
			time.Sleep(50 * time.Millisecond)
		}
		_, err := io.ReadAll(req.Parts())
		results <- err
		return nil, nil
	}))
	for _, cmd := range []string{"idle", "slow"} {
		ctx, cancel := context.WithCancel(context.Background())
		parts, err := a.NotifyStream(ctx, cmd, nil)
		if err != nil {
			t.Fatal(err)
		}
		if cmd == "slow" { // it waits for credit when its context ends
			time.AfterFunc(10*time.Millisecond, cancel)
			for err = nil; err == nil; {
				err = parts.Send(make([]byte, 1000))
				time.Sleep(time.Millisecond)
			}
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		cancel()
		if err := parts.Send([]byte("late")); !errors.Is(err, context.Canceled) {
			t.Errorf("a part after the end of the context: %v", err)
		}
		select {
		case err := <-results:
			if !errors.Is(err, ErrAborted) {
				t.Errorf("%s: the handler got %v", cmd, err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: the handler waits for parts that do not come", cmd)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.outStreams) > 0 {
		t.Errorf("%d streams are left", len(a.outStreams))
	}
}

func TestTheEndOfTheConnectionEndsTheContextOfOneWays(t *testing.T) {
	for _, features := range []uint32{ownFeatures, 0} {
		began, ended := make(chan struct{}, 2), make(chan error, 2)
		a, b := pair(t, FormatStandard, Options{}, nil, HandlerFunc(func(ctx context.Context, _ *Request) ([]byte, error) {
			began <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, nil
		}))
		for _, c := range []*Conn{a, b} {
			c.features.Store(features)
			c.accepts.Store(features)
		}
		if err := a.Notify(context.Background(), "wait", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Go(context.Background(), "wait", nil); err != nil {
			t.Fatal(err)
		}
		soon(t, "a handler begins", began)
		soon(t, "the other begins", began)
		a.ended(errors.New("the test ends it"))
		soon(t, "a handler is told", ended)
		soon(t, "the other is told", ended)
	}
}

// rawPeer is a connection whose other side is the test.
func rawPeer(t *testing.T, options Options, handler Handler) (c *Conn, in, out *os.File) {
	t.Helper()
	in, w1, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r2, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = w1.Fd()
	if c, err = newConn("peer", FormatAuto, options, r2, w1, false); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(c.w.fd, true); err != nil {
		t.Fatal(err)
	}
	c.handler, c.logf = handler, func(string, ...any) {}
	c.onEnd = func(error) {
		c.closeInput()
		c.closeOutput()
	}
	c.start()
	t.Cleanup(func() {
		c.ended(errors.New("the test is over"))
		in.Close()
		out.Close()
	})
	return c, in, out
}

func TestAPeerThatDoesNotReadCostsNoMoreThanItsHandlers(t *testing.T) {
	const handlers, size = 4, 1 << 20
	c, in, out := rawPeer(t, Options{MaxHandlers: handlers}, HandlerFunc(func(context.Context, *Request) ([]byte, error) {
		return make([]byte, size), nil
	}))
	const n = 200
	for i := 1; i <= n; i++ {
		if _, err := fmt.Fprintf(out, "%d\x002\x003\x00big\x000\x00", i); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond)
	c.w.mu.Lock()
	queued := c.w.queued
	c.w.mu.Unlock()
	if queued > (handlers+2)*size+queueLimit {
		t.Errorf("%d bytes wait for a peer that does not read", queued)
	}
	if _, err := fmt.Fprintf(out, "%d\x002\x008\x00cmd.ping\x000\x00", n+1); err != nil {
		t.Fatal(err)
	}
	// All of it comes once the peer reads.
	got, ping := 0, false
	for got < n*size || !ping {
		buffer := make([]byte, 1<<20)
		m, err := in.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		got += m
		ping = ping || bytes.Contains(buffer[:m], []byte("cmd.ping"))
	}
}

func TestRequestsWithTheSameNumberAreAllAnswered(t *testing.T) {
	c, in, out := rawPeer(t, Options{}, echoMux())
	c.features.Store(ownFeatures)
	c.accepts.Store(ownFeatures)
	for i := 0; i < 3; i++ {
		fmt.Fprintf(out, "18446744073709551615\x002\x004\x00echo\x002\x00hi")
	}
	want := strings.Repeat("18446744073709551615\x003\x004\x00echo\x002\x00hi", 3)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v", got, err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for left := 1; left > 0; {
		c.mu.Lock()
		left = len(c.requests)
		c.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("%d requests are kept", left)
		}
	}
}

func TestLongCommandsAreNotKept(t *testing.T) {
	r := &reader{commands: map[string]*command{}}
	for i := 0; i < 2000; i++ {
		r.command([]byte(fmt.Sprint(strings.Repeat("x", 60_000), i)))
	}
	size := 0
	for name := range r.commands {
		size += len(name)
	}
	if size > 1<<20 {
		t.Errorf("%d bytes of names are kept", size)
	}
}

func TestItemsThatDoNotFitEndTheCall(t *testing.T) {
	ended := make(chan struct{})
	s := NewService("s", 1)
	AddStream(s, "numbers", func(ctx context.Context, _ None, _ *ItemReader[None], out *ItemWriter[string]) (None, error) {
		_ = out.Send("no number")
		<-ctx.Done()
		close(ended)
		return None{}, nil
	})
	a, _ := pair(t, FormatStandard, Options{}, nil, routeServices([]*Service{s}, nil))
	client := &Client{a, "s"}
	stream, err := InvokeStream[None, int, None](context.Background(), client, "numbers", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := stream.All(); err == nil {
		t.Error("no error")
	}
	soon(t, "the handler is told", ended)
}

func TestAPipelineIntoAGuestThatStartsSlowly(t *testing.T) {
	metadata, echo := "1\x002\x0011\x00GetMetadata\x000\x00", "7\x002\x004\x00echo\x005\x00hello"
	stop := "0\x001\x008\x00cmd.stop\x000\x00"
	for name, chunks := range map[string]string{
		"stop": metadata + echo + stop, "end": metadata + echo, "twice": metadata + "2" + metadata[1:] + echo,
		"without metadata": echo, "without metadata, stop": echo + stop,
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "PIPEPLUG_TEST_GUEST=slow-start")
		cmd.Stdin = strings.NewReader(chunks)
		out, err := cmd.Output()
		wantStatus := 1
		if strings.Contains(chunks, "cmd.stop") {
			wantStatus = 0
		}
		if status := cmd.ProcessState.ExitCode(); status != wantStatus {
			t.Errorf("%s: status %d, %v", name, status, err)
		}
		if !bytes.Contains(out, []byte("7\x003\x004\x00echo\x005\x00hello")) {
			t.Errorf("%s: no answer in %q", name, out)
		}
		if got, want := bytes.Count(out, []byte("\x003\x0011\x00GetMetadata")), strings.Count(chunks, "GetMetadata"); got != want {
			t.Errorf("%s: %d answers to %d questions", name, got, want)
		}
	}
}

func TestAPipelineWithASlowReaderGetsAllAnswers(t *testing.T) {
	const n, size = 40, 64 << 10
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PIPEPLUG_TEST_GUEST=bare")
	var chunks strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&chunks, "%d\x002\x004\x00echo\x00%d\x00%s", i, size, strings.Repeat("x", size))
	}
	cmd.Stdin = strings.NewReader(chunks.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // the pipe is full, and the input has ended
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := bytes.Count(text, []byte("\x003\x004\x00echo")); got != n || len(text) < n*size {
		t.Errorf("%d answers of %d, %d bytes", got, n, len(text))
	}
}
