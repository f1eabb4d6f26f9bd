package pipeplug

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// callsOf are all ways to send something.
func callsOf(c *Conn) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Call":   func(ctx context.Context) error { _, err := c.Call(ctx, "echo", nil); return err },
		"Go":     func(ctx context.Context) error { _, err := c.Go(ctx, "echo", nil); return err },
		"Stream": func(ctx context.Context) error { _, err := c.Stream(ctx, "echo", nil); return err },
		"Notify": func(ctx context.Context) error { return c.Notify(ctx, "echo", nil) },
		"NotifyStream": func(ctx context.Context) error {
			_, err := c.NotifyStream(ctx, "echo", nil)
			return err
		},
		"Ping": c.Ping,
	}
}

func TestContextsThatAreOverOrNil(t *testing.T) {
	plugin, _ := mustStart(t, Host{}, "plain")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	negative, cancel := context.WithTimeout(context.Background(), -time.Second)
	defer cancel()
	for name, send := range callsOf(plugin.Conn) {
		if err := send(nil); err == nil || !strings.Contains(err.Error(), "the context is nil") {
			t.Errorf("%s: %v", name, err)
		}
		for want, ctx := range map[error]context.Context{
			context.Canceled: cancelled, context.DeadlineExceeded: negative,
		} {
			if err := send(ctx); !errors.Is(err, want) || !strings.Contains(err.Error(), "not sent") {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
		// Its timer has not run.
		if err := send(silent{context.Background(), time.Now().Add(-1)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	//lint:ignore SA1012 it is what is tested
	if err := plugin.Stop(nil); err != nil {
		t.Errorf("%v", err)
	}
}

func TestCallsAfterTheEnd(t *testing.T) {
	crashed := func(plugin *Plugin) { _, _ = plugin.Call(context.Background(), "exit", nil) }
	for want, end := range map[string]func(*Plugin){
		"is gone: its host has stopped it":    func(plugin *Plugin) { _ = plugin.Stop(context.Background()) },
		"is gone: its host has killed it":     func(plugin *Plugin) { _ = plugin.Kill() },
		"exit status 3":                       crashed,
		"last on its stderr: the last words":  crashed,
		"has ended: killed by signal 9 (SIGK": func(plugin *Plugin) { _ = syscall.Kill(plugin.Pid(), syscall.SIGKILL); <-plugin.Done() },
	} {
		plugin, _ := mustStart(t, Host{}, "plain")
		end(plugin)
		for name, send := range callsOf(plugin.Conn) {
			err := send(within(t, 10*time.Second))
			if !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `plugin "`) {
				t.Errorf("%s: %v\nwant %s", name, err, want)
			}
		}
		// A second stop, and one of many, say the same as the first.
		var first error
		for i := 0; i < 3; i++ {
			err := plugin.Stop(within(t, 10*time.Second))
			if i == 0 {
				first = err
			} else if (err == nil) != (first == nil) || (err != nil && err.Error() != first.Error()) {
				t.Errorf("%v, and %v before", err, first)
			}
		}
		over, cancel := context.WithCancel(context.Background())
		cancel()
		if err := plugin.Stop(over); errors.Is(err, context.Canceled) {
			t.Errorf("a stop of what has ended: %v", err)
		}
		if err := plugin.Kill(); err != nil {
			t.Error(err)
		}
	}
}

// Each of many calls has its reply or an error, whoever stops the plugin meanwhile.
func TestStopsWithManyCallsInFlight(t *testing.T) {
	for name, end := range map[string]func(*Plugin) error{
		"Stop": func(plugin *Plugin) error { return plugin.Stop(context.Background()) },
		"Kill": (*Plugin).Kill,
	} {
		plugin, _ := mustStart(t, Host{}, "plain")
		var group, stops sync.WaitGroup
		var mu sync.Mutex
		answered, closed := 0, 0
		for i := 0; i < 1000; i++ {
			call, err := plugin.Go(within(t, 30*time.Second), "slow", nil)
			if err != nil {
				t.Fatal(err)
			}
			group.Add(1)
			go func() {
				defer group.Done()
				reply, err := call.Wait()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && string(reply) == "done":
					answered++
				case errors.Is(err, ErrClosed):
					closed++
				default:
					t.Errorf("%s: %q, %v", name, reply, err)
				}
			}()
		}
		for i := 0; i < 8; i++ {
			stops.Add(1)
			go func() {
				defer stops.Done()
				if err := end(plugin); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}()
		}
		stops.Wait()
		group.Wait()
		if answered+closed != 1000 || (name == "Stop" && closed != 0) {
			t.Errorf("%s: %d answered, %d closed", name, answered, closed)
		}
	}
}

// leftovers are the goroutines and descriptors of this process.
func leftovers(t *testing.T) (goroutines, descriptors int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no /proc")
	}
	return runtime.NumGoroutine(), len(entries)
}

// Nothing is left for the collector, which closes files as well.
func TestNothingIsLeftOfPlugins(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	ctx := within(t, 100*time.Second)
	use := func(i int) {
		host := Host{Stdio: i%2 == 0, Format: Format(i % 3), Stderr: io.Discard, Env: append(os.Environ(), "PIPEPLUG_TEST_GUEST=plain")}
		if i%10 == 9 { // a start that fails
			host.Env, host.StartTimeout = append(os.Environ(), "PIPEPLUG_TEST_GUEST=sleeps"), time.Millisecond
			if _, err := host.Start(ctx, os.Args[0]); err == nil {
				t.Error("it has started")
			}
			if _, err := host.Start(ctx, "/no/such/plugin"); err == nil {
				t.Error("it has started")
			}
			return
		}
		plugin, err := host.Start(ctx, os.Args[0])
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := plugin.Call(ctx, "echo", []byte("x")); err != nil {
			t.Error(err)
		}
		if i%4 != 2 { // what is at work at the end
			call, err := plugin.Go(ctx, "hang", nil)
			if err == nil {
				call.Done()
			}
			if host.Format != FormatClassic {
				if s, err := plugin.Stream(ctx, "hang", nil, OnProgress(func(Progress) {})); err == nil {
					_ = s.Out.Send([]byte("part"))
				}
				_, _ = plugin.NotifyStream(ctx, "hang", nil)
			}
		}
		switch i % 4 {
		case 0:
			_ = plugin.Kill()
		case 1:
			_ = syscall.Kill(plugin.Pid(), syscall.SIGKILL)
			<-plugin.Done()
		case 2:
			if err := plugin.Stop(ctx); err != nil {
				t.Error(err)
			}
		default:
			_, _ = plugin.Call(ctx, "exit", nil)
		}
		<-plugin.Exited()
	}
	use(0)
	time.Sleep(50 * time.Millisecond)
	goroutines, descriptors := leftovers(t)
	var group sync.WaitGroup
	for worker := 0; worker < 4; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			for i := worker; i < 200; i += 4 {
				use(i)
			}
		}(worker)
	}
	group.Wait()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		g, d := leftovers(t)
		if g <= goroutines && d <= descriptors {
			return
		}
		if time.Now().After(end) {
			stacks := make([]byte, 1<<18)
			t.Fatalf("%d goroutines and %d descriptors, %d and %d before\n%s", g, d, goroutines, descriptors, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
