package pipeplug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this program the plugin of its tests, if a variable says so.
func TestMain(m *testing.M) {
	if kind := os.Getenv("PIPEPLUG_TEST_GUEST"); kind != "" {
		testGuest(kind)
	}
	os.Exit(m.Run())
}

func testGuest(kind string) {
	if kind == "old" {
		oldGuest()
	}
	mux := lateMux()
	mux.HandleFunc("print", func(_ context.Context, req *Request) ([]byte, error) {
		fmt.Println("a stray line")
		return req.Data, nil
	})
	mux.HandleFunc("exit", func(context.Context, *Request) ([]byte, error) {
		fmt.Fprintln(os.Stderr, "the last words")
		os.Exit(3)
		return nil, nil
	})
	mux.HandleFunc("words", func(context.Context, *Request) ([]byte, error) {
		for i := 1; i <= 40; i++ {
			fmt.Fprintf(os.Stderr, "word %d\x1b\n", i)
		}
		return nil, nil
	})
	mux.HandleFunc("crash", func(context.Context, *Request) ([]byte, error) {
		go panic("outside of the handler")
		select {}
	})
	mux.HandleFunc("half", func(context.Context, *Request) ([]byte, error) {
		time.AfterFunc(20*time.Millisecond, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
		return make([]byte, 200<<20), nil
	})
	mux.HandleFunc("panic", func(context.Context, *Request) ([]byte, error) { panic("as asked") })
	mux.HandleFunc("hang", func(context.Context, *Request) ([]byte, error) { select {} })
	mux.HandleFunc("slow", func(context.Context, *Request) ([]byte, error) {
		time.Sleep(300 * time.Millisecond)
		return []byte("done"), nil
	})
	mux.HandleFunc("stdin", func(context.Context, *Request) ([]byte, error) {
		text, err := io.ReadAll(os.Stdin)
		return []byte(fmt.Sprintf("%d", len(text))), err
	})
	mux.HandleFunc("args", func(context.Context, *Request) ([]byte, error) {
		return []byte(strings.Join(OwnArgs(), "|")), nil
	})
	mux.HandleFunc("config", func(_ context.Context, req *Request) ([]byte, error) {
		var config struct{ Dir string }
		if err := req.Conn().Config(&config); err != nil {
			return nil, err
		}
		return []byte(config.Dir + fmt.Sprint(req.Conn().PeerMetadata()[keyConfig])), nil
	})
	mux.HandleFunc("version", func(_ context.Context, req *Request) ([]byte, error) {
		version, ok := req.Conn().InterfaceVersion()
		return []byte(fmt.Sprint(version, ok)), nil
	})
	guest := Guest{Handler: mux, Name: "testee", InterfaceVersions: []uint32{1, 2, 3}, Metadata: map[string]string{"Help": "none"}}
	switch kind {
	case "start-calls":
		guest.Start = func(ctx context.Context, host *Conn) error {
			reply, err := host.Call(ctx, "name", nil)
			guest.Metadata["Told"] = string(reply)
			return err
		}
	case "start-fails":
		guest.Start = func(context.Context, *Conn) error { return errors.New("there is no disk") }
	case "start-panics":
		guest.Start = func(context.Context, *Conn) error { panic("no disk") }
	case "start-nil":
		guest.Start = func(context.Context, *Conn) error { return (*Error)(nil) }
	case "start-exits":
		guest.Start = func(context.Context, *Conn) error { runtime.Goexit(); return nil }
	case "sleeps":
		guest.Start = func(context.Context, *Conn) error { time.Sleep(time.Hour); return nil }
	case "slow-start":
		guest.Start = func(context.Context, *Conn) error { time.Sleep(300 * time.Millisecond); return nil }
	case "short":
		guest.Grace = 100 * time.Millisecond
	case "bare":
		guest.InterfaceVersions = nil
	case "ignores":
		guest.Grace = time.Hour
	}
	guest.Main()
}

// oldGuest reads as the original Go package does: a header byte by byte, a buffer with one read(2).
// It echoes, and exits with 9 when a buffer was cut.
func oldGuest() {
	in, out := os.Stdin, os.Stdout
	if os.Args[1] != "0" { // the collector closes what is not used
		in, out = os.NewFile(3, "in"), os.NewFile(4, "out")
	}
	for {
		id, direction, rest, ok := oldHeader(in)
		if !ok {
			os.Exit(1)
		}
		cmd, size, _ := strings.Cut(rest, " ")
		n, _ := strconv.Atoi(size)
		buffer := make([]byte, n)
		if got, _ := in.Read(buffer); got != n {
			fmt.Fprintf(os.Stderr, "a buffer of %d bytes came as %d\n", n, got)
			os.Exit(9)
		}
		switch {
		case cmd == cmdStop:
			os.Exit(0)
		case direction == "2":
			if cmd == cmdMetadata {
				buffer = []byte(`{"Cmd":"old"}`)
			}
			id, _ := strconv.ParseUint(id, 10, 64)
			_, _ = out.Write(append(appendHeader(nil, FormatClassic, id, response, cmd, len(buffer)), buffer...))
		}
	}
}

func oldHeader(in io.Reader) (id, direction, rest string, ok bool) {
	var fields [3]string
	for i := range fields {
		for b := []byte{1}; ; fields[i] += string(b) {
			if n, err := in.Read(b); n != 1 || err != nil {
				return "", "", "", false
			}
			if b[0] == 0 {
				break
			}
		}
	}
	return fields[0], fields[1], fields[2], true
}

func TestAGuestOfTheOriginalPackage(t *testing.T) {
	for _, stdio := range []bool{false, true} {
		plugin, stderr := mustStart(t, Host{Format: FormatClassic, Stdio: stdio}, "old")
		ctx := within(t, 30*time.Second)
		if plugin.PeerMetadata()["Cmd"] != "old" {
			t.Errorf("%v", plugin.PeerMetadata())
		}
		var group sync.WaitGroup
		for caller := 0; caller < 4; caller++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for _, size := range []int{0, 1, 4000, 4090, 4096, 10_000, 65_530, 65_536, 200_000, 1_000_000, largestPipe - 1, largestPipe, 3} {
					data := bytes.Repeat([]byte("x"), size)
					if reply, err := plugin.Call(ctx, "echo", data); err != nil || !bytes.Equal(reply, data) {
						t.Errorf("%d bytes: %v; %s", size, err, stderr)
						return
					}
				}
			}()
		}
		group.Wait()
		// What no pipe holds is refused, and the connection goes on.
		for name, send := range map[string]func(data []byte) error{
			"Call":   func(data []byte) error { _, err := plugin.Call(ctx, "echo", data); return err },
			"Notify": func(data []byte) error { return plugin.Notify(ctx, "echo", data) },
			"Go":     func(data []byte) error { _, err := plugin.Go(ctx, "echo", data); return err },
		} {
			err := send(make([]byte, largestPipe+1))
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "a buffer of 1048577 bytes is larger than the pipe, which holds 1048576") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := plugin.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
}

// A peer that says what it is reads until a buffer is complete.
func TestLargeBuffersOfTheClassicFormat(t *testing.T) {
	plugin, _ := mustStart(t, Host{Format: FormatClassic}, "plain")
	data := bytes.Repeat([]byte("large"), 1_000_000)
	if reply, err := plugin.Call(within(t, 20*time.Second), "echo", data); err != nil || !bytes.Equal(reply, data) {
		t.Errorf("%d bytes, %v", len(reply), err)
	}
}

// A host that reads as the original package does gets each buffer of a guest as a whole.
func TestAHostOfTheOriginalPackage(t *testing.T) {
	cmd := exec.Command(os.Args[0], "0", "1")
	cmd.Env = append(os.Environ(), "PIPEPLUG_TEST_GUEST=bare")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sizes := []int{2, 0, 4096, 5000, 65_536, 500_000, 1_000_000, largestPipe - 1, largestPipe, largestPipe + 1, 3}
	go func() {
		_, _ = in.Write(appendHeader(nil, FormatClassic, 1, request, cmdMetadata, 0))
		for i, size := range sizes {
			chunk := appendHeader(nil, FormatClassic, uint64(i+2), request, "echo", size)
			_, _ = in.Write(append(chunk, make([]byte, size)...))
		}
	}()
	for got := 0; got <= len(sizes); got++ {
		id, direction, rest, ok := oldHeader(out)
		if !ok {
			t.Fatal("the guest has ended")
		}
		name, text, _ := strings.Cut(rest, " ")
		size, _ := strconv.Atoi(text)
		if name == cmdError && id == "11" { // what no pipe holds
			refused := make([]byte, size)
			_, _ = out.Read(refused)
			if !strings.Contains(string(refused), "larger than the pipe, which holds 1048576") {
				t.Errorf("%s", refused)
			}
			continue
		}
		if n, _ := out.Read(make([]byte, size)); n != size {
			t.Fatalf("%s: a buffer of %d bytes came as %d", name, size, n)
		}
		if want := cmdMetadata; direction != "3" || (id == "1") != (name == want) {
			t.Errorf("%s %s %s", id, direction, rest)
		}
	}
	_, _ = in.Write(appendHeader(nil, FormatClassic, 0, oneWay, cmdStop, 0))
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// lines is a writer for tests.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func startTestee(t *testing.T, host Host, kind string, args ...string) (*Plugin, *lines, error) {
	t.Helper()
	stderr := &lines{}
	host.Stderr = stderr
	host.Env = append(os.Environ(), "PIPEPLUG_TEST_GUEST="+kind)
	plugin, err := host.Start(within(t, 20*time.Second), os.Args[0], args...)
	if err == nil {
		t.Cleanup(func() { _ = plugin.Kill() })
	}
	return plugin, stderr, err
}

func mustStart(t *testing.T, host Host, kind string, args ...string) (*Plugin, *lines) {
	t.Helper()
	plugin, stderr, err := startTestee(t, host, kind, args...)
	if err != nil {
		t.Fatal(err)
	}
	return plugin, stderr
}

func TestPluginsOfAllKinds(t *testing.T) {
	for _, format := range formats {
		for _, stdio := range []bool{false, true} {
			for _, args := range [][]string{nil, {"--own", "x"}, {"5", "6", "7"}} {
				plugin, stderr := mustStart(t, Host{Format: format, Stdio: stdio}, "plain", args...)
				ctx := within(t, 20*time.Second)
				for cmd, want := range map[string]string{"args": strings.Join(args, "|"), "print": "x", "echo": "x", "version": "0 false"} {
					if reply, err := plugin.Call(ctx, cmd, []byte("x")); err != nil || string(reply) != want {
						t.Errorf("%v %v %s: %q, %v, want %q", format, stdio, cmd, reply, err, want)
					}
				}
				if stdio {
					if reply, err := plugin.Call(ctx, "stdin", nil); err != nil || string(reply) != "0" {
						t.Errorf("its standard input has %s bytes, %v", reply, err)
					}
				}
				if plugin.PeerMetadata()["Help"] != "none" || plugin.PeerMetadata()[keyName] != "testee" {
					t.Errorf("%v", plugin.PeerMetadata())
				}
				if err := plugin.Stop(ctx); err != nil {
					t.Error(err)
				}
				if !strings.Contains(stderr.String(), "a stray line") {
					t.Errorf("the stray line is not on stderr: %q", stderr)
				}
			}
		}
	}
}

func TestStopAnswersWhatIsAtWork(t *testing.T) {
	plugin, _ := mustStart(t, Host{}, "plain")
	ctx := within(t, 10*time.Second)
	call, err := plugin.Go(ctx, "slow", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := plugin.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if err := plugin.Stop(ctx); err != nil {
		t.Error(err)
	}
	if reply, err := call.Wait(); err != nil || string(reply) != "done" {
		t.Errorf("%q, %v", reply, err)
	}
	if err := plugin.Stop(ctx); err != nil {
		t.Errorf("a second stop: %v", err)
	}
}

func TestAPluginThatDoesNotStopIsKilled(t *testing.T) {
	plugin, _ := mustStart(t, Host{Grace: 50 * time.Millisecond}, "ignores")
	ctx := within(t, 10*time.Second)
	if _, err := plugin.Go(ctx, "hang", nil); err != nil {
		t.Fatal(err)
	}
	_ = plugin.Ping(ctx)
	var exit *ExitError
	if err := plugin.Stop(ctx); !errors.As(err, &exit) || !strings.Contains(err.Error(), "signal 15 (SIGTERM)") {
		t.Errorf("%v", err)
	}
	plugin, _ = mustStart(t, Host{}, "ignores")
	if _, err := plugin.Go(ctx, "hang", nil); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := plugin.Stop(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	<-plugin.Exited()
}

func TestCrashes(t *testing.T) {
	for cmd, want := range map[string]string{"exit": "exit status 3", "crash": "exit status 2", "half": "killed by signal 9 (SIGKILL)"} {
		plugin, _ := mustStart(t, Host{}, "plain")
		ctx := within(t, 10*time.Second)
		_, err := plugin.Call(ctx, cmd, nil)
		var exit *ExitError
		if !errors.Is(err, ErrClosed) || !errors.As(err, &exit) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", cmd, err)
		}
		if cmd == "exit" && (exit == nil || !strings.Contains(exit.Stderr, "the last words")) {
			t.Errorf("%+v", exit)
		}
		if err := plugin.Stop(ctx); !errors.As(err, &exit) {
			t.Errorf("%v", err)
		}
	}
	// A panic in a handler ends the call, and not the plugin.
	plugin, stderr := mustStart(t, Host{}, "plain")
	ctx := within(t, 10*time.Second)
	if _, err := plugin.Call(ctx, "panic", nil); !errors.Is(err, ErrPanicked) {
		t.Errorf("%v", err)
	}
	if _, err := plugin.Call(ctx, "echo", nil); err != nil {
		t.Errorf("%v", err)
	}
	if err := plugin.Stop(ctx); err != nil {
		t.Error(err)
	}
	if !strings.Contains(stderr.String(), "process_test.go") {
		t.Errorf("there is no stack: %q", stderr)
	}
}

func TestSignalsEndAPlugin(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		// As it is in a background job of a script: its children inherit that.
		if ossignal.Ignored(signal) {
			t.Logf("%v is ignored here", signal)
			continue
		}
		plugin, _ := mustStart(t, Host{}, "plain")
		ctx := within(t, 10*time.Second)
		if group, err := syscall.Getpgid(plugin.Pid()); err != nil || group != plugin.Pid() {
			t.Errorf("the plugin is in the group %d, so that Ctrl-C reaches it", group)
		}
		if err := syscall.Kill(plugin.Pid(), signal); err != nil {
			t.Fatal(err)
		}
		select {
		case <-plugin.Done():
		case <-ctx.Done():
			t.Fatalf("%v does not end it", signal)
		}
		var exit *ExitError
		if err := plugin.Stop(ctx); !errors.As(err, &exit) {
			t.Errorf("%v: %v", signal, err)
		}
	}
}

func TestStarts(t *testing.T) {
	var start *StartError
	names := NewMux()
	names.HandleFunc("name", func(context.Context, *Request) ([]byte, error) { return []byte("Ann"), nil })
	plugin, _ := mustStart(t, Host{Handler: names}, "start-calls")
	if told := plugin.PeerMetadata()["Told"]; told != "Ann" {
		t.Errorf("the plugin was told %q", told)
	}
	_, _, err := startTestee(t, Host{}, "start-fails")
	if !errors.As(err, &start) || !strings.Contains(err.Error(), "there is no disk") || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%v", err)
	}
	_, _, err = startTestee(t, Host{StartTimeout: 200 * time.Millisecond}, "sleeps")
	if !errors.As(err, &start) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Host.Stdio") {
		t.Errorf("%v", err)
	}
	if _, err := Start(context.Background(), "./nothing"); !errors.As(err, &start) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := Start(within(t, 10*time.Second), "/bin/true"); !errors.As(err, &start) || !strings.Contains(err.Error(), "exit status 0") {
		t.Errorf("%v", err)
	}
	if _, err := (&Host{Stdio: true}).Start(within(t, 10*time.Second), "/bin/echo", "hello"); err == nil || !strings.Contains(err.Error(), "must print nothing of its own") {
		t.Errorf("%v", err)
	}
}

func TestConfigAndVersions(t *testing.T) {
	plugin, _ := mustStart(t, Host{Config: map[string]string{"dir": "/tmp/ü"}, InterfaceVersions: []uint32{2, 3, 4}}, "plain")
	ctx := within(t, 10*time.Second)
	if reply, err := plugin.Call(ctx, "config", nil); err != nil || string(reply) != "/tmp/ü" {
		t.Errorf("%q, %v", reply, err)
	}
	if reply, err := plugin.Call(ctx, "version", nil); err != nil || string(reply) != "3 true" {
		t.Errorf("%q, %v", reply, err)
	}
	if version, ok := plugin.InterfaceVersion(); version != 3 || !ok {
		t.Errorf("%v, %v", version, ok)
	}
	plugin, _ = mustStart(t, Host{}, "plain")
	if _, err := plugin.Call(ctx, "config", nil); err == nil || err.Error() != ErrNoConfig.Error() {
		t.Errorf("%v", err)
	}
	_, _, err := startTestee(t, Host{InterfaceVersions: []uint32{7, 8}}, "plain")
	if !errors.Is(err, ErrInterfaceVersions) || !strings.Contains(err.Error(), "is the older one") {
		t.Errorf("%v", err)
	}
	if _, _, err := startTestee(t, Host{Config: strings.Repeat("x", maxConfig)}, "plain"); err == nil || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("%v", err)
	}
}

// run runs this program as a plugin without a host.
func runAlone(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "PIPEPLUG_TEST_GUEST=bare")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if stdin != "null" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestExitStatusesWithoutAHost(t *testing.T) {
	for name, c := range map[string]struct {
		stdin  string
		args   []string
		status int
		stderr string
	}{
		"/dev/null":           {"null", nil, 2, "pipeplug run"},
		"nothing":             {"", nil, 2, "pipeplug run"},
		"text":                {"hello\n", nil, 1, "broken chunk at byte 0"},
		"a ping and the end":  {"1\x002\x008\x00cmd.ping\x000\x00", nil, 1, "the host is gone"},
		"a stop":              {"0\x001\x008\x00cmd.stop\x000\x00", nil, 0, ""},
		"no such descriptors": {"", []string{"70", "71"}, 2, "the descriptor 70"},
		"the same descriptor": {"", []string{"1", "1"}, 2, "other direction"},
		"stderr":              {"", []string{"0", "2"}, 2, "the descriptor 2"},
		"listen without path": {"", []string{"--pipeplug-listen"}, 2, "needs the path"},
	} {
		status, stdout, stderr := runAlone(t, c.stdin, c.args...)
		if status != c.status || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: exit status %d, want %d; %q", name, status, c.status, stderr)
		}
		if name == "a ping and the end" && stdout != "1\x003\x008\x00cmd.ping\x000\x00" {
			t.Errorf("%s: %q", name, stdout)
		}
	}
	// A pipeline: the answers of what runs are read after the end of the input.
	status, stdout, _ := runAlone(t, "1\x002\x004\x00slow\x000\x00")
	if status != 1 || stdout != "1\x003\x004\x00slow\x004\x00done" {
		t.Errorf("exit status %d, %q", status, stdout)
	}
}

func TestAttach(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	cmd := exec.Command(os.Args[0], "--pipeplug-listen", socket)
	cmd.Env = append(os.Environ(), "PIPEPLUG_TEST_GUEST=plain")
	stderr := &lines{}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if info, err := os.Lstat(socket); err == nil {
			if info.Mode().Perm() != 0o600 {
				t.Errorf("the socket has the mode %v", info.Mode())
			}
			break
		}
		if i > 1000 {
			t.Fatalf("there is no socket: %s", stderr)
		}
		time.Sleep(5 * time.Millisecond)
	}
	ctx := within(t, 10*time.Second)
	plugin, err := new(Host).Attach(ctx, socket)
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 3<<20)
	if reply, err := plugin.Call(ctx, "echo", big); err != nil || !bytes.Equal(reply, big) {
		t.Errorf("%d, %v", len(reply), err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := plugin.Stop(ctx); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr)
	}
}

// A plugin whose host is killed ends by itself.
func TestALostHost(t *testing.T) {
	plugin, stderr := mustStart(t, Host{}, "plain")
	plugin.closeOutput()
	<-plugin.Exited()
	if status := plugin.cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(stderr.String(), "testee: the host is gone") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
}

// A handler that does not end keeps a plugin whose host is gone only for its grace time.
func TestALostHostWithAHandlerAtWork(t *testing.T) {
	plugin, stderr := mustStart(t, Host{}, "short")
	ctx := within(t, 10*time.Second)
	if _, err := plugin.Go(ctx, "hang", nil); err != nil {
		t.Fatal(err)
	}
	if err := plugin.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	plugin.closeOutput()
	<-plugin.Exited()
	if status := plugin.cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(stderr.String(), "handlers were still at work 100ms") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
}

func TestServices(t *testing.T) {
	type args struct {
		Name string `json:"name"`
		Most int    `json:"most" default:"3"`
	}
	type result struct{ Words []string }
	service := NewService("spell", 3).Oldest(2).Docs("Checks words.")
	AddMethod(service, "suggest", func(_ context.Context, a args) (result, error) {
		if a.Name == "" {
			return result{}, fmt.Errorf("wrapped: %w", &ownError{Reason: "empty"})
		}
		return result{strings.Split(strings.Repeat(a.Name+" ", a.Most), " ")[:a.Most]}, nil
	}).Fails(&ownError{}).Idempotent()
	AddStream(service, "double", func(_ context.Context, _ None, in *ItemReader[int], out *ItemWriter[string]) (int, error) {
		for n := 0; ; n++ {
			item, err := in.Recv()
			if err == io.EOF {
				return n, nil
			}
			if err != nil {
				return n, err
			}
			if err := out.Send(fmt.Sprint(2 * item)); err != nil {
				return n, err
			}
		}
	})
	learnt := make(chan string, 1)
	AddMethod(service, "learn", func(_ context.Context, a args) (None, error) {
		learnt <- a.Name
		return None{}, nil
	}).OneWay()
	services := []*Service{service}
	a, b := pair(t, FormatStandard, Options{}, nil, routeServices(services, nil))
	b.services = services
	a.mu.Lock()
	a.peerMetadata = b.offer(ownFeatures, nil)
	a.mu.Unlock()
	ctx := within(t, 10*time.Second)
	client, err := NewClient(a, "spell", 2)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[uint32]string{1: "this side is the older one", 4: "the other side is the older one"} {
		if _, err := NewClient(a, "spell", version); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
	}
	if _, err := NewClient(a, "other", 1); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
	if r, err := Invoke[result](ctx, client, "suggest", map[string]any{"name": "x", "unknown": 1}); err != nil || len(r.Words) != 3 {
		t.Errorf("%v, %v", r, err)
	}
	_, err = Invoke[result](ctx, client, "suggest", args{})
	if own, message, ok := MethodError[ownError](err); !ok || own.Reason != "empty" || !strings.HasPrefix(message, "wrapped: ") {
		t.Errorf("%v, %v", own, err)
	}
	for _, wrong := range []map[string]any{{}, {"name": 3}, {"name": nil}, {"name": "x", "most": "many"}} {
		if _, err := Invoke[result](ctx, client, "suggest", wrong); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	stream, err := InvokeStream[int, string, int](ctx, client, "double", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 5; i++ {
		if err := stream.Out.Send(i); err != nil {
			t.Fatal(err)
		}
	}
	_ = stream.Out.Close()
	if items, n, err := stream.All(); err != nil || n != 5 || strings.Join(items, " ") != "0 2 4 6 8" {
		t.Errorf("%v, %d, %v", items, n, err)
	}
	if err := client.Notify(ctx, "learn", args{Name: "new"}); err != nil {
		t.Error(err)
	}
	if word := <-learnt; word != "new" {
		t.Error(word)
	}
	reply, err := a.Call(ctx, "GetServices", nil)
	if err != nil || !strings.Contains(string(reply), `"one_way":true`) || !strings.Contains(string(reply), `"idempotent":true`) {
		t.Errorf("%s, %v", reply, err)
	}
}

type ownError struct{ Reason string }

func (e *ownError) Error() string { return e.Reason }

func TestSnakeCase(t *testing.T) {
	for name, want := range map[string]string{"Greet": "greet", "DockerHost": "docker_host", "GetHTTPPage": "get_http_page", "ID": "id"} {
		if got := snakeCase(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
