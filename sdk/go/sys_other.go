//go:build unix && !linux

package pipeplug

import (
	"errors"
	"os"
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

// poll waits for events by select(2): package syscall has no poll for these systems.
func poll(fds []pollFd, timeout int64) (int, error) {
	var in, out syscall.FdSet
	most := 0
	// Sets are arrays of words, little-endian on all machines that these systems and Go share.
	type bytes = [unsafe.Sizeof(in)]byte
	for _, p := range fds {
		if int(p.fd) >= 8*len(bytes{}) {
			return 0, errors.New("a descriptor is too large for select(2)")
		}
		if int(p.fd) > most {
			most = int(p.fd)
		}
		set := &in
		if p.events == pollOut {
			set = &out
		}
		(*bytes)(unsafe.Pointer(set))[p.fd/8] |= 1 << (uint(p.fd) % 8)
	}
	var tv *syscall.Timeval
	if timeout >= 0 {
		t := syscall.NsecToTimeval(timeout)
		tv = &t
	}
	if err := syscall.Select(most+1, &in, &out, nil, tv); err != nil {
		return 0, err
	}
	n := 0
	for i, p := range fds {
		set := &in
		if p.events == pollOut {
			set = &out
		}
		fds[i].revents = 0
		if (*bytes)(unsafe.Pointer(set))[p.fd/8]&(1<<(uint(p.fd)%8)) != 0 {
			fds[i].revents = p.events
			n++
		}
	}
	return n, nil
}

func pollNow(fds []pollFd) (int, error) { return poll(fds, 0) }

// growPipe is for Linux: pipes of other systems cannot be grown.
func growPipe(int, int) int { return smallestPipe }

func unreadBytes(int) int { return 0 }

// isNoexec is unknown: the flag is another one on each of these systems.
func isNoexec(string) bool { return false }

// peerUID trusts the mode of the socket, which package syscall has no call to check on these systems.
func peerUID(int) (int, error) { return os.Geteuid(), nil }

func reopenNonblocking(int) (int, error) { return -1, syscall.ENOTSUP }

func dup2(from, to int) error { return syscall.Dup2(from, to) }

func pluginAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
