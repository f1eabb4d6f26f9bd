package pipeplug

import (
	"strconv"
	"syscall"
	"unsafe"
)

const (
	pollIn  = 1
	pollOut = 4
)

type pollFd struct {
	fd      int32
	events  int16
	revents int16
}

// poll waits for events; a negative timeout in nanoseconds is none. It is interrupted by signals.
func poll(fds []pollFd, timeout int64) (int, error) {
	var ts *syscall.Timespec
	if timeout >= 0 {
		t := syscall.NsecToTimespec(timeout)
		ts = &t
	}
	n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// pollNow looks for events, and does not wait: the scheduler need not know.
func pollNow(fds []pollFd) (int, error) {
	var zero syscall.Timespec
	n, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Commands of fcntl(2).
const (
	fSetPipeSize = 1031
	fGetPipeSize = 1032
)

// growPipe makes a pipe hold size bytes, or as much as the system allows, and returns what it holds.
func growPipe(fd, size int) int {
	for ; size > smallestPipe; size /= 2 {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), fSetPipeSize, uintptr(size))
		if errno == 0 {
			return int(n)
		}
	}
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), fGetPipeSize, 0)
	if errno != 0 {
		return smallestPipe
	}
	return int(n)
}

// unreadBytes is how much of a pipe's contents its reader has not taken.
func unreadBytes(fd int) int {
	var n int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0
	}
	return int(n)
}

// isNoexec tells whether nothing is executed from the file system of a file: statfs(2).
func isNoexec(path string) bool {
	const stNoexec = 8
	var fs syscall.Statfs_t
	return syscall.Statfs(path, &fs) == nil && fs.Flags&stNoexec != 0
}

// peerUID is the user at the other end of a Unix socket.
func peerUID(fd int) (int, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// reopenNonblocking opens the pipe of a descriptor once more, so that it does not block and the
// descriptions that other processes have are left as they are.
func reopenNonblocking(fd int) (int, error) {
	if !isPipe(fd) {
		return -1, syscall.ENOTSUP
	}
	return syscall.Open("/proc/self/fd/"+strconv.Itoa(fd), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
}

func dup2(from, to int) error { return syscall.Dup3(from, to, 0) }

func pluginAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
