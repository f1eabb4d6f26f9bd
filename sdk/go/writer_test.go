package pipeplug

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// pipeWriter is a writer with the end that reads from it.
func pipeWriter(t *testing.T) (*writer, *os.File) {
	t.Helper()
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(out, false, func(err error) { t.Error(err) })
	t.Cleanup(func() {
		close(w.ended)
		_ = r.Close()
	})
	return w, r
}

// A buffer of the classic format waits until its reader has taken the one before, however long that
// takes: it would be cut.
func TestAClassicBufferIsNeverCut(t *testing.T) {
	t.Parallel()
	w, r := pipeWriter(t)
	const size = 700_000
	for i := 0; i < 2; i++ {
		w.put(FormatClassic, 1, request, "echo", make([]byte, size), true)
	}
	w.flush()
	header := len(appendHeader(nil, FormatClassic, 1, request, "echo", size))
	for began := time.Now(); time.Since(began) < 2*time.Second; time.Sleep(20 * time.Millisecond) {
		if n := unreadBytes(w.fd); n > header+size {
			t.Fatalf("%d bytes are in the pipe after %v", n, time.Since(began))
		}
	}
	for i := 0; i < 2; i++ {
		if n, err := r.Read(make([]byte, header)); n != header || err != nil {
			t.Fatal(n, err)
		}
		if n, err := r.Read(make([]byte, size)); n != size || err != nil {
			t.Fatalf("buffer %d came as %d bytes, %v", i, n, err)
		}
		for end := time.Now().Add(10 * time.Second); i == 0 && unreadBytes(w.fd) < header+size && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
}

// Package os sets a descriptor to blocking when it gives it out: a write would hold up the goroutine
// that reads.
func TestNoWriteBlocks(t *testing.T) {
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	if err := syscall.SetNonblock(fds[1], true); err != nil {
		t.Fatal(err)
	}
	w := newWriter(os.NewFile(uintptr(fds[1]), "nonblocking"), false, func(error) {})
	defer w.file.Close()
	if flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(w.fd), syscall.F_GETFL, 0); flags&syscall.O_NONBLOCK == 0 {
		t.Error("the descriptor blocks")
	}
}
