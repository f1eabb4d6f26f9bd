package main

// The pipeplug protocol for a plugin, in both formats, with the standard library alone.
//
// Calls to the host and streams are not here: docs/protocol.md of pipeplug has the whole protocol.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"
)

const (
	oneWay   = 1
	request  = 2
	response = 3

	// Limits in bytes: of a command, of its data, and of all that waits to be handled or to be read by the host.
	longestCommand = 64 << 10
	longestData    = 256 << 20
	mostWaiting    = 64 << 20
)

// Answer answers a request, on a goroutine of its own. An error goes to the caller.
type Answer func(command string, data []byte) ([]byte, error)

// Serve answers requests until the host stops the plugin. An error says why the connection has ended.
func Serve(answer Answer, metadata []byte) error {
	source, sink := descriptors()
	in := &reader{bufio: bufio.NewReaderSize(source, 64<<10)}
	out := newOutput(sink)
	var requests budget
	requests.changed.L = &requests.lock
	var handlers sync.WaitGroup

	handle := func(c chunk) {
		defer handlers.Done()
		defer requests.give(len(c.data))
		command := c.command
		reply, err := answer(c.command, c.data)
		if err != nil {
			if c.direction == oneWay {
				fmt.Fprintf(os.Stderr, "%s: %v\n", c.command, err)
			}
			command, reply = "cmd.error", []byte(err.Error())
		}
		if c.direction == request {
			out.send(c.id, command, reply, in.classic)
		}
	}
	for {
		c, err := in.chunk()
		switch {
		case err != nil:
			return err
		case c.direction == oneWay && c.command == "cmd.stop":
			handlers.Wait()
			out.close()
			return nil
		case c.direction == request && c.isTooLong:
			text := fmt.Sprintf("over the limit of %d bytes for a command, %d for data", longestCommand, longestData)
			out.send(c.id, "cmd.error", []byte(text), in.classic)
		case c.direction != oneWay && c.direction != request || c.isTooLong:
		case c.direction == request && c.command == "GetMetadata":
			out.send(c.id, c.command, metadata, in.classic)
		case c.direction == request && c.command == "cmd.ping":
			out.send(c.id, c.command, nil, in.classic)
		case c.direction == request || !strings.HasPrefix(c.command, "cmd."):
			requests.take(len(c.data))
			handlers.Add(1)
			go handle(c)
		}
	}
}

// descriptors returns those that the arguments name, or else stdin and stdout.
func descriptors() (source, sink *os.File) {
	in, out := 0, 1
	if len(os.Args) >= 3 {
		first, err1 := strconv.ParseUint(os.Args[1], 10, 31)
		second, err2 := strconv.ParseUint(os.Args[2], 10, 31)
		if err1 == nil && err2 == nil {
			os.Args = append(os.Args[:1], os.Args[3:]...)
			in, out = int(first), int(second)
		}
	}
	syscall.CloseOnExec(in)
	syscall.CloseOnExec(out)
	if out == 1 {
		// Nothing else may be written between chunks.
		os.Stdout = os.Stderr
	}
	return os.NewFile(uintptr(in), "from host"), os.NewFile(uintptr(out), "to host")
}

type chunk struct {
	id        uint64
	direction uint64
	command   string
	data      []byte
	isTooLong bool
}

// reader reads chunks. The first one shows the format.
type reader struct {
	bufio   *bufio.Reader
	known   bool
	classic bool
}

func (r *reader) chunk() (c chunk, err error) {
	id, idEnd, err := r.digits()
	if err != nil {
		return c, err
	}
	direction, directionEnd, err := r.digits()
	if err != nil {
		return c, err
	}
	var third []byte
	thirdEnd, hasThird := -1, false
	if !r.known {
		r.classic = len(id) == 0 || len(direction) == 0
		if !r.classic {
			if third, thirdEnd, err = r.digits(); err != nil {
				return c, err
			}
			hasThird = true
			r.classic = thirdEnd != 0 || len(third) > 20
		}
		r.known = true
	}
	if c.id, err = r.number(id, idEnd); err != nil {
		return c, err
	}
	if c.direction, err = r.number(direction, directionEnd); err != nil {
		return c, err
	}
	var command []byte
	if r.classic {
		command, err = r.classicCommand(third, thirdEnd)
	} else {
		if !hasThird {
			if third, thirdEnd, err = r.digits(); err != nil {
				return c, err
			}
		}
		var length uint64
		if length, err = r.number(third, thirdEnd); err != nil {
			return c, err
		}
		if command, err = r.field(length, longestCommand); err != nil {
			return c, err
		}
		var end byte
		if end, err = r.bufio.ReadByte(); err == nil && end != 0 {
			err = errors.New("no NUL after a command")
		}
	}
	if err != nil {
		return c, err
	}
	isKnown := c.direction >= oneWay && c.direction <= response
	if isKnown && command != nil && !utf8.Valid(command) {
		return c, errors.New("a command that is not UTF-8")
	}
	digits, end, err := r.digits()
	if err != nil {
		return c, err
	}
	length, err := r.number(digits, end)
	if err != nil {
		return c, err
	}
	c.data, err = r.field(length, longestData)
	c.command, c.isTooLong = string(command), command == nil || c.data == nil
	return c, err
}

// digits returns digits, 21 at most, and the byte after them: -1 if there are too many.
func (r *reader) digits() ([]byte, int, error) {
	var digits []byte
	for len(digits) <= 20 {
		b, err := r.bufio.ReadByte()
		if err != nil {
			return nil, 0, err
		}
		if b < '0' || b > '9' {
			return digits, int(b), nil
		}
		digits = append(digits, b)
	}
	return digits, -1, nil
}

func (r *reader) number(digits []byte, end int) (uint64, error) {
	if end == 0 && len(digits) == 0 && r.classic {
		return 0, nil
	}
	number, err := strconv.ParseUint(string(digits), 10, 64)
	if end != 0 || err != nil || len(digits) > 1 && digits[0] == '0' {
		return 0, fmt.Errorf("not a number of a chunk: %q before byte %d", digits, end)
	}
	return number, nil
}

// classicCommand reads a command of the classic format, which a space ends. It is nil if it is too long. `command` and
// `end` are what was read of it.
func (r *reader) classicCommand(command []byte, end int) ([]byte, error) {
	length := len(command)
	for {
		if end < 0 {
			b, err := r.bufio.ReadByte()
			if err != nil {
				return nil, err
			}
			end = int(b)
		}
		switch {
		case end == 0:
			return nil, errors.New("a NUL in a command")
		case end == ' ' && length > longestCommand:
			return nil, nil
		case end == ' ':
			return append([]byte{}, command...), nil
		}
		if length++; length <= longestCommand {
			command = append(command, byte(end))
		}
		end = -1
	}
}

// field reads bytes: nil if there are more than the limit. Memory grows with what arrives.
func (r *reader) field(length, limit uint64) ([]byte, error) {
	if length > limit {
		for length > 0 {
			some := length
			if some > 1<<20 {
				some = 1 << 20
			}
			if _, err := io.CopyN(io.Discard, r.bufio, int64(some)); err != nil {
				return nil, err
			}
			length -= some
		}
		return nil, nil
	}
	if length <= 64<<10 {
		data := make([]byte, length)
		_, err := io.ReadFull(r.bufio, data)
		return data, err
	}
	var data bytes.Buffer
	_, err := io.CopyN(&data, r.bufio, int64(length))
	return data.Bytes(), err
}

// budget counts bytes that wait. Taking waits while there are too many.
type budget struct {
	lock    sync.Mutex
	changed sync.Cond
	waiting int
}

func (b *budget) take(count int) {
	b.lock.Lock()
	defer b.lock.Unlock()
	for b.waiting >= mostWaiting {
		b.changed.Wait()
	}
	b.waiting += count + 64
}

func (b *budget) give(count int) {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.waiting -= count + 64
	b.changed.Broadcast()
}

// output writes responses on a goroutine of its own, so that a host that reads slowly does not stop the reader.
type output struct {
	budget
	chunks [][]byte
	closed bool
	done   chan struct{}
}

func newOutput(sink *os.File) *output {
	out := &output{done: make(chan struct{})}
	out.changed.L = &out.lock
	go out.write(sink)
	return out
}

func (out *output) send(id uint64, command string, data []byte, classic bool) {
	var chunk []byte
	if classic {
		number := func(n uint64) string { return strings.TrimPrefix(strconv.FormatUint(n, 10), "0") }
		chunk = []byte(fmt.Sprintf("%s\x003\x00%s %s\x00", number(id), command, number(uint64(len(data)))))
	} else {
		chunk = []byte(fmt.Sprintf("%d\x003\x00%d\x00%s\x00%d\x00", id, len(command), command, len(data)))
	}
	chunk = append(chunk, data...)
	out.take(len(chunk))
	out.lock.Lock()
	defer out.lock.Unlock()
	out.chunks = append(out.chunks, chunk)
	out.changed.Broadcast()
}

func (out *output) write(sink *os.File) {
	defer close(out.done)
	for {
		out.lock.Lock()
		for len(out.chunks) == 0 && !out.closed {
			out.changed.Wait()
		}
		chunks := out.chunks
		out.chunks = nil
		out.lock.Unlock()
		if len(chunks) == 0 {
			return
		}
		for _, chunk := range chunks {
			if _, err := sink.Write(chunk); err != nil {
				fmt.Fprintln(os.Stderr, "the host does not read:", err)
				os.Exit(1)
			}
			out.give(len(chunk))
		}
	}
}

func (out *output) close() {
	out.lock.Lock()
	out.closed = true
	out.changed.Broadcast()
	out.lock.Unlock()
	<-out.done
}
