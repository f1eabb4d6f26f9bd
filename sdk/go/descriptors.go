package pipeplug

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
)

// isDescriptor tells whether an argument is the number of a descriptor.
func isDescriptor(arg string) bool {
	if arg == "" {
		return false
	}
	for i := 0; i < len(arg); i++ {
		if arg[i] < '0' || arg[i] > '9' {
			return false
		}
	}
	_, err := strconv.ParseInt(arg, 10, 32)
	return err == nil
}

// connect takes the descriptors of the connection. blocking is true if the output may be shared
// with other processes, which do not expect O_NONBLOCK.
func (g *Guest) connect(args []string) (in, out *os.File, blocking, told bool, err error) {
	if len(args) > 0 && args[0] == listenArg {
		if len(args) < 2 || args[1] == "" {
			return nil, nil, false, false, &setupError{fmt.Errorf("%s needs the path of a socket", listenArg)}
		}
		in, out, err = g.awaitHost(args[1])
		if err != nil {
			return nil, nil, false, false, &setupError{fmt.Errorf("cannot wait for a host at %q: %w", args[1], err)}
		}
		return in, out, false, true, nil
	}
	reader, writer := 0, 1
	if protocol, _ := splitArgs(args); protocol != nil {
		told = true
		reader, _ = strconv.Atoi(protocol[0])
		writer, _ = strconv.Atoi(protocol[1])
	}
	if !told && isByHand() {
		return nil, nil, false, false, g.byHand()
	}
	for _, half := range []struct {
		fd    int
		name  string
		wrong int
	}{{reader, "in", syscall.O_WRONLY}, {writer, "out", syscall.O_RDONLY}} {
		if err := checkDescriptor(half.fd, half.wrong, told); err != nil {
			return nil, nil, false, false, &setupError{fmt.Errorf("the descriptor %d, which is to bring chunks %s: %w", half.fd, half.name, err)}
		}
	}
	if told && reader == writer {
		return nil, nil, false, false, &setupError{fmt.Errorf("the descriptor %d is named for both directions", reader)}
	}
	readFd, writeFd := reader, writer
	if reader <= 2 {
		if readFd, err = moveAway(reader); err != nil {
			return nil, nil, false, false, &setupError{err}
		}
	}
	if writer <= 2 {
		if writeFd, err = moveAway(writer); err != nil {
			return nil, nil, false, false, &setupError{err}
		}
		if fresh, err := reopenNonblocking(writeFd); err == nil {
			_ = syscall.Close(writeFd)
			writeFd = fresh
		} else {
			blocking = true
		}
	}
	syscall.CloseOnExec(readFd)
	syscall.CloseOnExec(writeFd)
	in, out = os.NewFile(uintptr(readFd), "host"), os.NewFile(uintptr(writeFd), "host")
	return in, out, blocking, told, nil
}

// checkDescriptor tells why a descriptor cannot be that of a connection.
func checkDescriptor(fd, wrong int, told bool) error {
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno != 0 {
		return fmt.Errorf("it is not open: %w", errno)
	}
	if int(flags)&syscall.O_ACCMODE == wrong || fd == 2 {
		return fmt.Errorf("it is open for the other direction")
	}
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return err
	}
	switch kind := stat.Mode & syscall.S_IFMT; {
	case !told, kind == syscall.S_IFIFO, kind == syscall.S_IFSOCK:
		return nil
	}
	return fmt.Errorf("it is neither a pipe nor a socket")
}

// isByHand tells whether no host can be at standard input and output.
func isByHand() bool {
	var stat syscall.Stat_t
	for fd := 0; fd <= 1; fd++ {
		if syscall.Fstat(fd, &stat) == nil && stat.Mode&syscall.S_IFMT == syscall.S_IFCHR && (fd == 0 || isTerminal(fd)) {
			return true
		}
	}
	return false
}

func isTerminal(fd int) bool {
	info, err := os.Stat("/dev/null")
	if err != nil {
		return true
	}
	null, ok := info.Sys().(*syscall.Stat_t)
	var stat syscall.Stat_t
	return !ok || syscall.Fstat(fd, &stat) != nil || stat.Rdev != null.Rdev
}

func isPipe(fd int) bool {
	var stat syscall.Stat_t
	return syscall.Fstat(fd, &stat) == nil && stat.Mode&syscall.S_IFMT == syscall.S_IFIFO
}

// moveAway copies a standard descriptor and puts something harmless in its place, for what the
// program reads and prints: nothing, and standard error.
func moveAway(fd int) (int, error) {
	copied, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 3)
	if errno != 0 {
		return -1, fmt.Errorf("the descriptor %d: %w", fd, errno)
	}
	if fd == 1 {
		if dup2(2, 1) == nil {
			return int(copied), nil
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return -1, err
	}
	defer null.Close()
	return int(copied), dup2(int(null.Fd()), fd)
}

// ignoreBrokenPipes has a print to a standard error that is gone fail, and not end the program.
// Children do not inherit it, as they would inherit signal.Ignore.
func ignoreBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// awaitHost waits for a host of the same user at a socket.
func (g *Guest) awaitHost(path string) (in, out *os.File, err error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, nil, fmt.Errorf("the file there is not a socket: use another path")
		}
		if probe, err := net.Dial("unix", path); err == nil {
			_ = probe.Close()
			return nil, nil, fmt.Errorf("another process listens there: end that, or take another path")
		}
		_ = os.Remove(path)
	}
	// The socket gets its mode before it has its name, so that no other user can be faster.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".pipeplug")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(hidden, 0o600); err != nil {
		return nil, nil, err
	}
	if err := os.Rename(hidden, path); err != nil {
		return nil, nil, err
	}
	defer os.Remove(path)
	fmt.Fprintf(os.Stderr, "%s waits for its host: pipeplug run --attach %s --call COMMAND [DATA]\n", g.name(), path)
	for {
		socket, err := listener.AcceptUnix()
		if err != nil {
			return nil, nil, err
		}
		in, err := socket.File()
		_ = socket.Close()
		if err != nil {
			return nil, nil, err
		}
		uid, err := peerUID(int(in.Fd()))
		if err != nil || uid != os.Geteuid() {
			fmt.Fprintf(os.Stderr, "%s turned a host of user %d away: it has to be of user %d\n", g.name(), uid, os.Geteuid())
			_ = in.Close()
			continue
		}
		copied, err := syscall.Dup(int(in.Fd()))
		if err != nil {
			return nil, nil, err
		}
		syscall.CloseOnExec(copied)
		return in, os.NewFile(uintptr(copied), "host"), nil
	}
}
