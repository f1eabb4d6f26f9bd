package pipeplug

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// An ExitError is a plugin that has ended by itself, or with another status than 0.
type ExitError struct {
	Plugin string           // its name
	State  *os.ProcessState // its exit status
	Stderr string           // the last lines of its standard error, at most 20
	Ran    time.Duration    // from its start to its end

	crash string // the line that tells of a panic
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("plugin %q (process %d) has ended: %s after %v", e.Plugin, e.State.Pid(), exitStatus(e.State), e.Ran.Round(time.Millisecond))
	last := e.Stderr[strings.LastIndexByte(e.Stderr, '\n')+1:]
	switch {
	case e.crash != "" && hasPanicked(e.State):
		return text + "; it panicked: " + printable(e.crash)
	case last == "":
		return text + "; nothing on its stderr"
	}
	return text + "; last on its stderr: " + printable(last)
}

// hasPanicked tells whether an exit status is that of a panic, in Go or in Rust.
func hasPanicked(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return state.ExitCode() == 2 || state.ExitCode() == 101 || (ok && status.Signaled() && status.Signal() == syscall.SIGABRT)
}

// exitStatus is an exit status in words.
func exitStatus(state *os.ProcessState) string {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return state.String()
	}
	text := fmt.Sprintf("killed by signal %d", status.Signal())
	if name := signalNames[status.Signal()]; name != "" {
		text += " (" + name + ")"
	}
	if status.CoreDump() {
		text += ", with a core dump"
	}
	return text
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGABRT: "SIGABRT", syscall.SIGALRM: "SIGALRM", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE",
	syscall.SIGHUP: "SIGHUP", syscall.SIGILL: "SIGILL", syscall.SIGINT: "SIGINT", syscall.SIGKILL: "SIGKILL",
	syscall.SIGPIPE: "SIGPIPE", syscall.SIGQUIT: "SIGQUIT", syscall.SIGSEGV: "SIGSEGV", syscall.SIGSYS: "SIGSYS",
	syscall.SIGTERM: "SIGTERM", syscall.SIGTRAP: "SIGTRAP", syscall.SIGUSR1: "SIGUSR1", syscall.SIGUSR2: "SIGUSR2",
	syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ",
}
