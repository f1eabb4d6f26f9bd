package pipeplug

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each start that fails says its cause, and what to do.
func TestErrorsOfStarts(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00" // aarch64
	if runtime.GOARCH == "arm64" {
		other = strings.Replace(other, "\xb7", "\x3e", 1)
	}
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if os.Symlink("/no/where", link) != nil || syscall.Mkfifo(fifo, 0o755) != nil {
		t.Fatal("there is no link, or no FIFO")
	}
	plain := file("plain", "#!/bin/sh\n", 0o644)
	script := func(name, text string) string { return file(name, "#!/bin/sh\n"+text, 0o755) }
	lines := ""
	for i := 1; i <= 30; i++ {
		lines += "echo line " + strings.Repeat("i", i) + ". >&2\n"
	}
	for name, c := range map[string]struct {
		path string
		host Host
		is   error
		want string // a regular expression
	}{
		"missing":               {path: filepath.Join(dir, "nothing"), is: os.ErrNotExist, want: `^no plugin at ".*/nothing": no such file; check the path$`},
		"not in PATH":           {path: "pipeplug-nothing", want: `^no plugin "pipeplug-nothing" in the directories of PATH; .*as in \./pipeplug-nothing$`},
		"dangling link":         {path: link, is: os.ErrNotExist, want: `it is a symbolic link to "/no/where", which does not exist`},
		"through a file":        {path: plain + "/x", want: `^no plugin at ".*": ".*/plain" is not a directory; name the file itself`},
		"relative to Dir":       {path: "./nothing", host: Host{Dir: dir}, want: `^no plugin at ".*/nothing": no such file; check the path; a relative path begins in Host.Dir$`},
		"no such Dir":           {path: plain, host: Host{Dir: dir + "/none"}, want: `cannot start in the working directory ".*/none" \(Host.Dir\): no such file or directory$`},
		"directory":             {path: dir, is: os.ErrPermission, want: `^plugin ".*" is a directory: name the executable file inside it$`},
		"fifo":                  {path: fifo, want: `is a FIFO, a socket or a device`},
		"not executable":        {path: plain, is: os.ErrPermission, want: `^plugin ".*/plain" is not executable \(mode 0644\): run .chmod \+x. on it$`},
		"no interpreter":        {path: file("interpreter", "#! /no/such -x\n", 0o755), is: os.ErrNotExist, want: `needs the interpreter "/no/such", which does not exist: install it`},
		"nested interpreter":    {path: file("nested", "#!"+file("inner", "#!/no/such\n", 0o755)+"\n", 0o755), want: `needs the interpreter "/no/such"`},
		"CR LF":                 {path: file("crlf", "#!/bin/sh\r\n", 0o755), want: `"/bin/sh\\r", which does not exist: its first line ends in CR LF`},
		"no #!":                 {path: file("text", "echo\n", 0o755), is: syscall.ENOEXEC, want: "has neither a `#!` line nor an ELF header; start a script with a line like `#!/bin/sh`$"},
		"empty":                 {path: file("empty", "", 0o755), want: `is not a program: it is empty;`},
		"#! of nothing":         {path: file("nothing-named", "#!\n", 0o755), want: `names no interpreter`},
		"byte order mark":       {path: file("bom", "\xef\xbb\xbf#!/bin/sh\n", 0o755), want: `a byte order mark`},
		"Windows":               {path: file("windows", "MZ\x90\x00", 0o755), want: `a Windows program`},
		"another machine":       {path: file("machine", other+strings.Repeat("\x00", 100), 0o755), is: syscall.ENOEXEC, want: `is built for another machine \((aarch64|x86_64), 64 bits, little-endian\), this one is .*: build it for this one$`},
		"damaged":               {path: file("damaged", "\x7fELF\x09", 0o755), want: `its ELF header is damaged`},
		"NUL":                   {path: "./a\x00b", want: `^the path of plugin ".*" has a NUL: a path cannot have one$`},
		"no path":               {path: "", want: `^plugin "" was not started: its path is empty: name its file$`},
		"through a file, #!":    {path: file("through", "#!/etc/passwd/sh\n", 0o755), is: syscall.ENOTDIR, want: `needs the interpreter "/etc/passwd/sh", which does not exist: install it`},
		"closed #!":             {path: file("closed", "#!/etc/passwd\n", 0o755), is: os.ErrPermission, want: `needs the interpreter "/etc/passwd", which is no file that this user may execute: correct its mode`},
		"#! of a directory":     {path: file("folder", "#!/etc\n", 0o755), is: os.ErrPermission, want: `needs the interpreter "/etc", which is no file that this user may execute`},
		"CR LF by env":          {path: file("crlf-env", "#!/usr/bin/env python3\r\n", 0o755), want: "exit status 127 after .*; its `#!` line ends with a carriage return, which is taken for a part of its last word: save the file with Unix line ends$"},
		"CR LF in Dir":          {path: "./crlf-env", host: Host{Dir: dir}, want: "line ends with a carriage return"},
		"CR LF by an option":    {path: file("crlf-option", "#!/bin/sh -e\r\n", 0o755), want: "line ends with a carriage return"},
		"env lacks the command": {path: file("env", "#!/usr/bin/env pipeplug-no-such\n", 0o755), want: `ended before it answered: exit status 127 after .*, last on its stderr: .*; command "pipeplug-no-such" was not found: install it, or have its directory in PATH`},
		"script lacks one":      {path: script("lacks", "exec ./none/such\n"), want: `; command "\./none/such" does not exist: install it, or correct its path`},
		"many lines":            {path: script("many", lines+"exit 3\n"), want: `exit status 3 after \S+, last on its stderr: line i{26}\. \| line i{27}\. \| line i{28}\. \| line i{29}\. \| line i{30}\.; is it a plugin\? If it speaks the classic format`},
		"killed":                {path: script("killed", "kill -9 $$\n"), want: `ended before it answered: killed by signal 9 \(SIGKILL\) after \S+, nothing on its stderr; is it a plugin\?`},
		"closes its pipe":       {path: script("closes", "exec 3<&- 4>&-; sleep 20\n"), want: `closed its pipe before it answered, and runs on, nothing on its stderr; is it a plugin\?`},
		"time limit":            {path: script("sleeps", "sleep 20\n"), host: Host{StartTimeout: 100 * time.Millisecond}, is: context.DeadlineExceeded, want: `did not answer within 100ms, nothing on its stderr; is it a plugin\? A slow one needs more time: Host.StartTimeout; if it speaks the classic format set Host.Format to FormatClassic, if it uses stdin and stdout set Host.Stdio$`},
		"prints":                {path: "/bin/echo", host: Host{Stdio: true, Format: FormatClassic}, want: `wrote what is no chunk: "0 1\\n" \(byte 1 of the stream`},
		"cat":                   {path: "/bin/cat", host: Host{Stdio: true}, want: `sent the host's own first request back: it copies its input to its output; is it a plugin\?$`},
		"the other format":      {path: script("other", `printf '1\0003\000GetMetadata 2\000{}' >&4; sleep 20`), want: `was spoken to in the standard format and answers in the classic one: set Host.Format to FormatClassic$`},
		"the other format, too": {path: script("other2", `printf '1\0003\00011\000GetMetadata\0002\000{}' >&4; sleep 20`), host: Host{Format: FormatClassic}, want: `answers in the standard one: leave Host.Format out$`},
		"no object":             {path: script("object", `printf '1\0003\00011\000GetMetadata\0002\000[]' >&4; sleep 20`), want: `its answer to GetMetadata is no JSON object: "\[\]"$`},
	} {
		name, c := name, c
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.host.Stderr = io.Discard
			plugin, err := c.host.Start(within(t, 20*time.Second), c.path)
			if err == nil {
				_ = plugin.Kill()
				t.Fatal("it starts")
			}
			var start *StartError
			if !errors.As(err, &start) || start.Plugin != c.path || (c.is != nil && !errors.Is(err, c.is)) {
				t.Errorf("%#v", err)
			}
			text := err.Error()
			if !regexp.MustCompile(c.want).MatchString(text) {
				t.Errorf("%s\nwant %s", text, c.want)
			}
			if strings.Contains(text, "\n") || strings.Count(text, "last on") > 1 {
				t.Errorf("a message of more than one line: %s", text)
			}
		})
	}
}

// A start call-back that does not return well ends the plugin, which says why.
func TestStartsThatPanic(t *testing.T) {
	for kind, want := range map[string]string{
		"start-panics": "testee: the start failed: it panicked: no disk",
		"start-nil":    "testee: the start failed: it panicked: its error is a nil *pipeplug.Error, which is not nil as an error: return nil itself",
		"start-exits":  "testee: the start failed: it ended without returning, by runtime.Goexit",
	} {
		_, _, err := startTestee(t, Host{}, kind)
		if err == nil || !strings.Contains(err.Error(), "ended before it answered: exit status 1 after ") || !strings.Contains(err.Error(), want+"; ") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestAStartThatIsGivenUp(t *testing.T) {
	host := Host{Env: append(os.Environ(), "PIPEPLUG_TEST_GUEST=sleeps"), Stderr: io.Discard}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := host.Start(ctx, os.Args[0])
	if !errors.Is(err, context.Canceled) || !regexp.MustCompile(`did not answer before its start was given up, after \S+: context canceled, nothing on its stderr$`).MatchString(err.Error()) {
		t.Errorf("%v", err)
	}
}

func TestWrongSettingsStartNothing(t *testing.T) {
	ctx := within(t, 10*time.Second)
	over, cancel := context.WithCancel(ctx)
	cancel()
	twice := []*Service{NewService("a", 1), NewService("a", 2)}
	for want, c := range map[string]struct {
		ctx  context.Context
		host Host
	}{
		"the context is nil":                                 {nil, Host{}},
		"its context is over already":                        {over, Host{}},
		"Host.StartTimeout is -1s":                           {ctx, Host{StartTimeout: -time.Second}},
		"Host.Grace is -1ns":                                 {ctx, Host{Grace: -1}},
		"Host.Options.MaxHandlers is -1":                     {ctx, Host{Options: Options{MaxHandlers: -1}}},
		`InOrder has the command "b"`:                        {ctx, Host{Options: Options{InOrder: [][]string{{"a", "b"}, {"b"}}}}},
		`has the service "a" twice`:                          {ctx, Host{Services: twice}},
		"has a nil service":                                  {ctx, Host{Services: []*Service{nil}}},
		`Host.LogLevel is "loud"`:                            {ctx, Host{LogLevel: "loud"}},
		"Host.Format is 7":                                   {ctx, Host{Format: 7}},
		"it cannot take the config":                          {ctx, Host{Format: FormatClassic, Config: 1, Env: append(os.Environ(), "PIPEPLUG_TEST_GUEST=old")}},
		"json: unsupported type: chan":                       {ctx, Host{Config: make(chan int)}},
		"no plugin waits at the socket":                      {ctx, Host{Env: []string{"attach"}}},
		"variable (Host.Env) whose name has a NUL":           {ctx, Host{Env: []string{"a\x00b"}}},
		`the variable "KEY" (Host.Env): its value has a NUL`: {ctx, Host{Env: []string{"PATH=/bin", "KEY=secret\x00b"}}},
		"cannot be given its argument 2: that has a NUL":     {ctx, Host{Env: []string{"args"}}},
	} {
		c.host.Stderr = io.Discard
		var err error
		switch {
		case len(c.host.Env) == 1 && c.host.Env[0] == "attach":
			_, err = c.host.Attach(c.ctx, "/no/such/socket")
		case len(c.host.Env) == 1 && c.host.Env[0] == "args":
			_, err = c.host.Start(c.ctx, os.Args[0], "secret", "secret\x00b")
		default:
			_, err = c.host.Start(c.ctx, os.Args[0])
		}
		var start *StartError
		if !errors.As(err, &start) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	for want, g := range map[string]Guest{
		"Guest.Grace is -1s":        {Grace: -time.Second},
		`has the service "a" twice`: {Services: twice},
	} {
		if err := g.Serve(ctx); err == nil || !strings.Contains(err.Error(), want) || ExitCode(err) != 2 {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	//lint:ignore SA1012 it is what is tested
	if err := new(Guest).Serve(nil); err == nil || !strings.Contains(err.Error(), "the context is nil") {
		t.Errorf("%v", err)
	}
}

// The errors of a plugin that has died name it, the signal or status, and its last words once.
func TestErrorsOfADeadPlugin(t *testing.T) {
	plugin, _ := mustStart(t, Host{}, "plain")
	ctx := within(t, 20*time.Second)
	errs := make(chan error, 100)
	for i := 0; i < cap(errs); i++ {
		call, err := plugin.Go(ctx, "hang", nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := call.Wait()
			errs <- err
		}()
	}
	if _, err := plugin.Call(ctx, "words", nil); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(plugin.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^hang: no reply: plugin "[^"/]+" \(process \d+\) has ended: killed by signal 9 \(SIGKILL\) after \S+; last on its stderr: \s*word 40\\x1b$`)
	for i := 0; i < cap(errs); i++ {
		if err := <-errs; !want.MatchString(err.Error()) || !errors.Is(err, ErrClosed) {
			t.Fatalf("%v", err)
		}
	}
	_, err := plugin.Call(ctx, "echo", nil)
	var exit *ExitError
	if !errors.As(err, &exit) || strings.Count(exit.Stderr, "\n") != keptLines-1 || !strings.HasPrefix(err.Error(), "echo: not sent: plugin ") {
		t.Errorf("%v", err)
	}
	// The trace of a panic is long: its first line is what matters.
	plugin, _ = mustStart(t, Host{}, "plain")
	_, err = plugin.Call(ctx, "crash", nil)
	if err == nil || !strings.HasSuffix(err.Error(), "; it panicked: panic: outside of the handler") {
		t.Errorf("%v", err)
	}
}

func TestLastLines(t *testing.T) {
	for text, want := range map[string]string{
		"":                          ", nothing on its stderr",
		" \n\n":                     ", nothing on its stderr",
		"a\r\n\n b\nc":              ", last on its stderr: a |  b | c",
		"1\n2\n3\n4\n5\n6\n":        ", last on its stderr: 2 | 3 | 4 | 5 | 6",
		"a\x1b[31m\tü\x00\xff\n":    `, last on its stderr: a\x1b[31m\tü\x00` + "\ufffd",
		strings.Repeat("x", 10_000): ", last on its stderr: " + strings.Repeat("x", keptLine),
	} {
		for _, size := range []int{1, 3, 100_000} {
			lines := &lastLines{}
			for rest := text; rest != ""; {
				n := size
				if n > len(rest) {
					n = len(rest)
				}
				_, _ = lines.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got, _ := lines.get(); lastOnStderr(got) != want {
				t.Errorf("%.40q by %d: %.80q", text, size, lastOnStderr(got))
			}
		}
	}
	for text, want := range map[string]string{
		"panic: x [recovered]\n\ngoroutine 1 [running]:\n":           "panic: x [recovered]",
		"fatal error: all goroutines are asleep - deadlock!\n\ngo":   "fatal error: all goroutines are asleep - deadlock!",
		"thread 'main' (7) panicked at a.rs:1:2:\nno way\nnote: x\n": "thread 'main' (7) panicked at a.rs:1:2: no way",
		"plugin: panic in the handler of x\n":                        "",
	} {
		lines := &lastLines{}
		_, _ = lines.Write([]byte(text + strings.Repeat("more\n", 100)))
		if _, got := lines.get(); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
