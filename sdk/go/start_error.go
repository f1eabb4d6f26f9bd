package pipeplug

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// A StartError says why a plugin did not start. Err, which it wraps, is for errors.Is and errors.As.
type StartError struct {
	Plugin string // its path, as it was given
	Stderr string // the last lines of its standard error, at most 20
	Err    error

	text string
}

func (e *StartError) Error() string { return e.text }

func (e *StartError) Unwrap() error { return e.Err }

// startProblem is the error of a start for which err is to be told after the path.
func startProblem(path string, err error) *StartError {
	return &StartError{Plugin: path, Err: err, text: fmt.Sprintf("plugin %q was not started: %v", path, err)}
}

// errEcho is a program that sends back what it reads.
var errEcho = errors.New("it has sent the host's own first request back")

// startFailed says why a plugin that runs, or ran, has not become one that can be called.
func (p *Plugin) startFailed(path string, err error) *StartError {
	lines, _ := p.stderr.get()
	stderr := lastOnStderr(lines)
	e := &StartError{Plugin: path, Stderr: strings.Join(lines, "\n"), Err: err}
	var exit *ExitError
	var broken *BrokenStreamError
	var closed *closedError
	problem := fmt.Sprintf("did not start: %v", err)
	switch {
	case errors.As(err, &broken) && broken.Kind != "end":
		problem = p.wrongBytes(broken, stderr)
	case errors.As(err, &exit):
		hint := missingCommand(exit, lines)
		if p.cmd != nil && !exit.State.Success() && endsInCR(p.file()) {
			hint = "its `#!` line ends with a carriage return, which is taken for a part of its last word: save the file with Unix line ends"
		}
		if hint == "" {
			hint = "is it a plugin? I" + p.otherSettings()[1:]
		}
		problem = fmt.Sprintf("ended before it answered: %s after %v%s; %s", exitStatus(exit.State), exit.Ran.Round(100*time.Microsecond), stderr, hint)
	case errors.Is(err, errPeerClosed):
		problem = fmt.Sprintf("closed its pipe before it answered, and runs on%s; is it a plugin? I%s", stderr, p.otherSettings()[1:])
	case errors.Is(err, errEcho):
		problem = "sent the host's own first request back: it copies its input to its output; is it a plugin?"
	case errors.Is(err, errStartTimeout):
		problem = fmt.Sprintf("did not answer within %v%s; is it a plugin? A slow one needs more time: Host.StartTimeout; %s", p.host.startTimeout(), stderr, p.otherSettings())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		problem = fmt.Sprintf("did not answer before its start was given up, after %v: %v%s", time.Since(p.began).Round(time.Millisecond), errors.Unwrap(err), stderr)
	case errors.As(err, &closed):
		problem = fmt.Sprintf("ended before it answered: %v%s", closed.cause, stderr)
	}
	e.text = fmt.Sprintf("plugin %q %s", path, problem)
	return e
}

// file is the path of the program as this process sees it.
func (p *Plugin) file() string {
	if filepath.IsAbs(p.cmd.Path) {
		return p.cmd.Path
	}
	return filepath.Join(p.cmd.Dir, p.cmd.Path)
}

// errEmptyPath is no path of a plugin.
var errEmptyPath = errors.New("its path is empty: name its file")

// errStartTimeout is the end of Host.StartTimeout.
var errStartTimeout = fmt.Errorf("no answer within the time limit of the start: %w", context.DeadlineExceeded)

// otherSettings names the settings of the host that another kind of plugin needs.
func (p *Plugin) otherSettings() string {
	format := "if it speaks the classic format set Host.Format to FormatClassic"
	if p.host.Format == FormatClassic {
		format = "if it speaks the standard format leave Host.Format out"
	}
	if p.cmd == nil {
		return format
	}
	if p.host.Stdio {
		return format + ", if it uses the descriptors 3 and 4 leave Host.Stdio out"
	}
	return format + ", if it uses stdin and stdout set Host.Stdio"
}

// wrongBytes says what a plugin wrote that is no chunk. The connection has ended.
func (p *Plugin) wrongBytes(broken *BrokenStreamError, stderr string) string {
	first := p.in.buf[:p.in.end]
	if p.in.dec.off > uint64(len(first)) { // more was read before
		return fmt.Sprintf("wrote what is no chunk: %v%s", broken, stderr)
	}
	either := decoder{cmdLimit: DefaultCommandLimit, bufLimit: DefaultBufferLimit}
	if _, done, err := either.header(first); done && err == nil && either.format != p.in.dec.format {
		spoken, setting := Format(p.format.Load()), "set Host.Format to FormatClassic"
		if spoken == FormatClassic {
			setting = "leave Host.Format out"
		}
		return fmt.Sprintf("was spoken to in the %v format and answers in the %v one: %s", spoken, either.format, setting)
	}
	if len(first) > 64 {
		first = first[:64]
	}
	hint := p.otherSettings()
	if p.host.Stdio {
		hint = "a plugin on stdin and stdout must print nothing of its own there"
	}
	return fmt.Sprintf("wrote what is no chunk: %q (%s)%s; %s", first, broken.problem(), stderr, hint)
}

// missingCommand is the next step where a script, or `env` in its `#!` line, lacked a command: exit
// statuses of POSIX, Shell Command Language, 2.8.2.
func missingCommand(exit *ExitError, stderr []string) string {
	code := exit.State.ExitCode()
	if code != 126 && code != 127 {
		return ""
	}
	for i := len(stderr) - 1; i >= 0; i-- { // earlier ones may have been expected
		name := commandNamed(stderr[i])
		switch {
		case name == "":
		case code == 126:
			return fmt.Sprintf("command %q may not be executed: check that it is a program for this machine, and is executable (`chmod +x`)", name)
		case strings.Contains(name, "/"):
			return fmt.Sprintf("command %q does not exist: install it, or correct its path, which is relative to the plugin's working directory", name)
		default:
			return fmt.Sprintf("command %q was not found: install it, or have its directory in PATH (Host.Env)", name)
		}
	}
	return ""
}

// commandNamed is the command that a line of a shell or of env says cannot be run.
func commandNamed(line string) string {
	if strings.Contains(line, "shared librar") || strings.Contains(line, "shared object") {
		return "" // of a dynamic loader, which ends with 127 too
	}
	name := ""
	if _, behind, ok := strings.Cut(line, "command not found: "); ok { // zsh
		name = behind
	}
	for _, ending := range []string{
		": command not found", ": not found", ": No such file or directory", ": Permission denied",
		": cannot execute: required file not found", ": cannot execute binary file: Exec format error",
		": Exec format error", ": Is a directory",
	} {
		if before := strings.TrimSuffix(line, ending); name == "" && before != line {
			name = before[strings.LastIndex(before, ": ")+1:]
		}
	}
	name = strings.TrimPrefix(strings.TrimSpace(name), "can't execute ") // BusyBox
	return strings.Trim(name, "'\"`‘’ ")
}
