// Command soak makes many calls of random kinds and sizes, gives some up, kills the plugin now and
// then, and checks that each call has exactly the outcome that it may have.
//
//	soak [-calls 10000] [-seed N] [-classic] PLUGIN [ARGS]
//
// The plugin has the commands of `@echo`: echo, sleep and ask, and echo with a stream.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"sync"
	"sync/atomic"
	"time"

	pipeplug "github.com/pipeplug/pipeplug/sdk/go"
)

const workers = 16

func main() {
	calls := flag.Int("calls", 10_000, "number of calls")
	seed := flag.Int64("seed", time.Now().UnixNano(), "seed of all that is random")
	classic := flag.Bool("classic", false, "speak the classic format")
	flag.Parse()
	fmt.Printf("soak: seed %d\n", *seed)
	s := &soak{args: flag.Args(), random: rand.New(rand.NewSource(*seed))}
	if *classic {
		s.host.Format = pipeplug.FormatClassic
	}
	if err := s.run(*calls); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

type soak struct {
	args []string
	host pipeplug.Host

	mu     sync.Mutex
	random *rand.Rand
	plugin *pipeplug.Plugin
	kills  int

	good, cancelled, lost atomic.Int64
}

func (s *soak) run(calls int) error {
	mux := pipeplug.NewMux()
	mux.HandleFunc("mirror", func(_ context.Context, req *pipeplug.Request) ([]byte, error) { return req.Data, nil })
	s.host.Handler = mux
	s.host.Stderr = io.Discard
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	if err := s.restart(ctx, nil); err != nil {
		return err
	}
	numbers := make(chan int)
	results := make(chan error, calls)
	for i := 0; i < workers; i++ {
		go func() {
			for n := range numbers {
				results <- s.one(ctx, n)
			}
		}()
	}
	go func() {
		for n := 0; n < calls; n++ {
			numbers <- n
		}
		close(numbers)
	}()
	for n := 0; n < calls; n++ {
		select {
		case err := <-results:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of %d calls have no outcome", calls-n, calls)
		}
	}
	if err := s.plugin.Stop(ctx); err != nil {
		return err
	}
	fmt.Printf("soak: %d calls: %d answered, %d given up, %d lost with %d killed plugins\n", calls, s.good.Load(), s.cancelled.Load(), s.lost.Load(), s.kills)
	if total := s.good.Load() + s.cancelled.Load() + s.lost.Load(); total != int64(calls) || s.good.Load() < int64(calls)/2 {
		return fmt.Errorf("%d outcomes", total)
	}
	return nil
}

// restart replaces a plugin that has ended.
func (s *soak) restart(ctx context.Context, old *pipeplug.Plugin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plugin != old {
		return nil
	}
	plugin, err := s.host.Start(ctx, s.args[0], s.args[1:]...)
	if err == nil {
		s.plugin = plugin
	}
	return err
}

// one makes one call. It is an error if that has an outcome which it may not have.
func (s *soak) one(ctx context.Context, n int) error {
	s.mu.Lock()
	plugin := s.plugin
	kind, size := s.random.Intn(100), s.random.Intn(1<<uint(s.random.Intn(18)))
	data := make([]byte, size)
	s.random.Read(data)
	patience := time.Duration(s.random.Intn(3000)) * time.Microsecond
	s.mu.Unlock()

	short, cancel := ctx, context.CancelFunc(func() {})
	cmd, sent, want := "echo", data, data
	switch {
	case n%1500 == 1499:
		s.mu.Lock()
		s.kills++
		s.mu.Unlock()
		time.AfterFunc(patience, func() { _ = plugin.Kill() })
		cmd, sent = "sleep", []byte("10000")
	case kind < 60:
	case kind < 75:
		short, cancel = context.WithTimeout(ctx, patience)
	case kind < 82:
		cmd, sent = "sleep", []byte("10000")
		short, cancel = context.WithTimeout(ctx, patience)
	case kind < 92:
		cmd = "ask"
		want = []byte(fmt.Sprintf("%x", data[:size%100]))
		sent = append([]byte("mirror "), want...)
	default:
		defer cancel()
		return s.outcome(ctx, plugin, n, "stream", s.stream(ctx, plugin, data), false)
	}
	defer cancel()
	reply, err := plugin.Call(short, cmd, sent)
	if err == nil && !bytes.Equal(reply, want) {
		return fmt.Errorf("call %d: %s of %d bytes brought %d others", n, cmd, len(sent), len(reply))
	}
	return s.outcome(ctx, plugin, n, cmd, err, short != ctx)
}

// stream sends data in parts, and checks that they come back.
func (s *soak) stream(ctx context.Context, plugin *pipeplug.Plugin, data []byte) error {
	stream, err := plugin.Stream(ctx, "echo", nil)
	if errors.Is(err, pipeplug.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	go func() {
		for rest := data; len(rest) > 0; {
			n := len(rest)/3 + 1
			if stream.Out.Send(rest[:n]) != nil {
				return
			}
			rest = rest[n:]
		}
		_ = stream.Out.Close()
	}()
	back, err := io.ReadAll(stream.In)
	if err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%d bytes came back of %d", len(back), len(data))
	}
	_, err = stream.Reply()
	return err
}

func (s *soak) outcome(ctx context.Context, plugin *pipeplug.Plugin, n int, cmd string, err error, timed bool) error {
	switch {
	case err == nil:
		s.good.Add(1)
	case errors.Is(err, pipeplug.ErrClosed):
		s.lost.Add(1)
		if err := s.restart(ctx, plugin); err != nil {
			return err
		}
	case timed && errors.Is(err, context.DeadlineExceeded):
		s.cancelled.Add(1)
	default:
		return fmt.Errorf("call %d: %s: %w", n, cmd, err)
	}
	return nil
}
