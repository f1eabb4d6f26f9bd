package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// silent is a context whose deadline passes without a word: as one whose timer has not run yet.
type silent struct {
	context.Context
	deadline time.Time
}

func (c silent) Deadline() (time.Time, bool) { return c.deadline, true }

// lateMux has commands that answer after the deadline of their request.
func lateMux() *Mux {
	mux := echoMux()
	late := func(ctx context.Context) {
		deadline, _ := ctx.Deadline()
		time.Sleep(time.Until(deadline) + 2*time.Millisecond)
	}
	mux.HandleFunc("late", func(ctx context.Context, _ *Request) ([]byte, error) {
		late(ctx)
		return []byte("too late"), nil
	})
	mux.HandleFunc("late-error", func(ctx context.Context, _ *Request) ([]byte, error) {
		late(ctx)
		return nil, Errorf("not_found", "too late")
	})
	mux.HandleFunc("at-the-deadline", func(ctx context.Context, _ *Request) ([]byte, error) {
		<-ctx.Done()
		return []byte("just now"), nil
	})
	return mux
}

func TestAReplyAfterTheDeadlineIsDropped(t *testing.T) {
	a, _ := pair(t, FormatStandard, Options{}, nil, lateMux())
	for _, cmd := range []string{"late", "late-error"} {
		for how, call := range map[string]func(context.Context) ([]byte, error){
			"Call": func(ctx context.Context) ([]byte, error) { return a.Call(ctx, cmd, nil) },
			"Go": func(ctx context.Context) ([]byte, error) {
				p, err := a.Go(ctx, cmd, nil)
				if err != nil {
					return nil, err
				}
				<-p.Done()
				return p.Wait()
			},
			"Stream": func(ctx context.Context) ([]byte, error) {
				s, err := a.Stream(ctx, cmd, nil)
				if err != nil {
					return nil, err
				}
				if _, err := s.In.Recv(); !errors.Is(err, context.DeadlineExceeded) {
					return nil, fmt.Errorf("the parts end with %v", err)
				}
				return s.Reply()
			},
		} {
			ctx := silent{context.Background(), time.Now().Add(20 * time.Millisecond)}
			if reply, err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || reply != nil {
				t.Errorf("%s of %s: %q, %v", how, cmd, reply, err)
			}
		}
	}
	// The connection goes on, and a reply in time is one however late it is looked at.
	ctx := silent{context.Background(), time.Now().Add(200 * time.Millisecond)}
	p, err := a.Go(ctx, "echo", []byte("in time"))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := p.Wait(); err != nil || string(reply) != "in time" {
		t.Fatalf("%q, %v", reply, err)
	}
	time.Sleep(time.Until(ctx.deadline))
	if reply, err := p.Wait(); err != nil || string(reply) != "in time" {
		t.Errorf("after the deadline: %q, %v", reply, err)
	}
}

// A handler that returns at its deadline never wins against that of the call.
func TestAHandlerThatReturnsAtItsDeadline(t *testing.T) {
	plugin, _ := mustStart(t, Host{}, "plain")
	for i := 0; i < 40; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		if reply, err := plugin.Call(ctx, "at-the-deadline", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call %d: %q, %v", i, reply, err)
		}
		cancel()
	}
}
