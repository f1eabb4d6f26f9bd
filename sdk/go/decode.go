package pipeplug

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// A BrokenStreamError says where a stream of chunks breaks the protocol. The connection has ended.
type BrokenStreamError struct {
	Field  string // "threadID", "direction", "len(cmd)", "cmd", "len(buffer)" or "buffer"
	Offset uint64 // of the byte in the stream, counted from 0
	Kind   string // one of docs/protocol.md, "Test vectors", such as "not-a-digit"
	Found  int    // the byte, or -1 at the end of the stream
}

func (e *BrokenStreamError) Error() string {
	return fmt.Sprintf("broken chunk at %s; the reason may be text that was printed between two chunks, or the other format", e.problem())
}

// problem is the place, and what is wrong there.
func (e *BrokenStreamError) problem() string {
	expected := map[string]string{
		"no-digits":    "expected digits",
		"not-a-digit":  "expected a digit or NUL",
		"leading-zero": "a number has no leading zero",
		"too-large":    "the number is above 2^64-1",
		"no-nul":       "expected NUL after the announced length",
		"nul-in-cmd":   "expected a space before NUL",
		"not-utf8":     "the cmd is not UTF-8",
		"end":          "the stream ended inside a chunk",
	}[e.Kind]
	found := ""
	if e.Found >= 0 {
		found = fmt.Sprintf(", found 0x%02x", e.Found)
		if e.Found > ' ' && e.Found < 0x7f {
			found += fmt.Sprintf(" (%q)", rune(e.Found))
		}
	}
	return fmt.Sprintf("byte %d of the stream, in its %s: %s%s", e.Offset, e.Field, expected, found)
}

type skipReason string

const (
	skipDirection skipReason = "unknown-direction"
	skipCommand   skipReason = "command-too-long"
	skipBuffer    skipReason = "buffer-too-long"
)

type field int

const (
	inID field = iota
	inDirection
	inThird // the format is not known yet
	inCmdLen
	inCmd
	inCmdNUL
	inBufLen
	inBuffer
)

var fieldNames = [...]string{"threadID", "direction", "len(cmd)", "len(cmd)", "cmd", "cmd", "len(buffer)", "buffer"}

// decoder reads headers of chunks from a stream in any cut. The buffer after a header is the
// caller's to read: bufLen bytes, then the next header.
type decoder struct {
	format    Format
	cmdLimit  uint64
	bufLimit  uint64
	off       uint64 // of the next byte
	at        field
	num       uint64
	digits    int
	noDigits  bool // the threadID or the direction has none, so the format is classic
	id        uint64
	direction uint64
	cmdLen    uint64
	bufLen    uint64
	cmd       []byte // at most cmdLimit bytes, at least the first 20
	third     int    // digits of the third field while the format is open
	skip      skipReason
	started   bool // inside a chunk
}

func (d *decoder) broken(kind string, at uint64, found int) error {
	return &BrokenStreamError{Field: fieldNames[d.at], Offset: at, Kind: kind, Found: found}
}

// end is the error of a stream that ends now; nil between two chunks.
func (d *decoder) end() error {
	if !d.started {
		return nil
	}
	return d.broken("end", d.off, -1)
}

// digit takes one byte of a number; done at the NUL after it.
func (d *decoder) digit(b byte, at uint64) (done bool, err error) {
	if c := b - '0'; c <= 9 {
		if d.digits > 0 && d.num == 0 {
			return false, d.broken("leading-zero", at, int(b))
		}
		if d.num > math.MaxUint64/10 || (d.num == math.MaxUint64/10 && c > 5) {
			return false, d.broken("too-large", at, int(b))
		}
		d.num = d.num*10 + uint64(c)
		d.digits++
		return false, nil
	}
	if b != 0 {
		return false, d.broken("not-a-digit", at, int(b))
	}
	if d.digits == 0 && d.format == FormatStandard {
		return false, d.broken("no-digits", at, 0)
	}
	return true, nil
}

// keep returns how much of a cmd is kept.
func (d *decoder) keep() int {
	if d.cmdLimit < 20 {
		return 20
	}
	return int(d.cmdLimit)
}

// header takes bytes of p up to the end of a header. done is true at that; n bytes were taken.
func (d *decoder) header(p []byte) (n int, done bool, err error) {
	if !d.started {
		if len(p) == 0 {
			return 0, false, nil
		}
		d.started = true
		d.at, d.num, d.digits, d.cmdLen, d.third, d.skip = inID, 0, 0, 0, 0, ""
		d.noDigits = false
		d.cmd = d.cmd[:0]
	}
	start := d.off
	defer func() { d.off = start + uint64(n) }()
	for n < len(p) {
		b, at := p[n], start+uint64(n)
		switch d.at {
		case inID, inDirection, inCmdLen, inBufLen:
			if c := b - '0'; c <= 9 && d.num != 0 && d.num < 1e17 { // the common case
				d.num = d.num*10 + uint64(c)
				d.digits++
				n++
				continue
			}
			end, err := d.digit(b, at)
			if err != nil {
				return n, false, err
			}
			n++
			if !end {
				continue
			}
			value := d.num
			empty := d.digits == 0
			d.num, d.digits = 0, 0
			switch d.at {
			case inID:
				d.id, d.noDigits = value, empty
				d.at = inDirection
			case inDirection:
				d.direction = value
				switch {
				case d.format == FormatStandard:
					d.at = inCmdLen
				case d.format == FormatClassic:
					d.at = inCmd
				case d.noDigits || empty:
					d.format, d.at = FormatClassic, inCmd
				default:
					d.at = inThird
				}
			case inCmdLen:
				d.cmdLen = value
				d.at = inCmd
				if value == 0 {
					d.at = inCmdNUL
				}
			case inBufLen:
				d.bufLen = value
				d.finish()
				return n, true, nil
			}
		case inThird:
			if b >= '0' && b <= '9' && d.third <= 20 {
				d.cmd = append(d.cmd, b)
				d.third++
				n++
				continue
			}
			if b == 0 && d.third <= 20 {
				d.format = FormatStandard
				d.at = inCmdLen
				first := at - uint64(d.third)
				for i, digit := range d.cmd {
					if _, err := d.digit(digit, first+uint64(i)); err != nil {
						return n, false, err
					}
				}
				d.cmd = d.cmd[:0]
				continue // with the NUL
			}
			d.format, d.at = FormatClassic, inCmd
			d.cmdLen = uint64(d.third)
		case inCmd:
			if d.format == FormatStandard {
				rest := d.cmdLen - d.num
				if have := uint64(len(p) - n); rest > have {
					rest = have
				}
				d.take(p[n : n+int(rest)])
				d.num += rest
				n += int(rest)
				if d.num == d.cmdLen {
					d.num = 0
					d.at = inCmdNUL
				}
				continue
			}
			end := n
			for end < len(p) && p[end] != ' ' && p[end] != 0 {
				end++
			}
			d.take(p[n:end])
			d.cmdLen += uint64(end - n)
			n = end
			if n == len(p) {
				break
			}
			if p[n] == 0 {
				return n, false, d.broken("nul-in-cmd", start+uint64(n), 0)
			}
			if err := d.checkCmd(start + uint64(n)); err != nil {
				return n, false, err
			}
			n++
			d.at = inBufLen
		case inCmdNUL:
			if b != 0 {
				return n, false, d.broken("no-nul", at, int(b))
			}
			if err := d.checkCmd(at); err != nil {
				return n, false, err
			}
			n++
			d.at = inBufLen
		}
	}
	return n, false, nil
}

func (d *decoder) take(p []byte) {
	if room := d.keep() - len(d.cmd); len(p) > room {
		p = p[:room]
	}
	d.cmd = append(d.cmd, p...)
}

// checkCmd checks the cmd, which ends before the offset end.
func (d *decoder) checkCmd(end uint64) error {
	if d.cmdLen > d.cmdLimit || d.direction < oneWay || d.direction > response || utf8.Valid(d.cmd) {
		return nil
	}
	bad := 0
	for bad < len(d.cmd) {
		r, size := utf8.DecodeRune(d.cmd[bad:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		bad += size
	}
	return d.broken("not-utf8", end-d.cmdLen+uint64(bad), int(d.cmd[bad]))
}

func (d *decoder) finish() {
	d.at = inBuffer
	switch {
	case d.direction < oneWay || d.direction > response:
		d.skip = skipDirection
	case d.cmdLen > d.cmdLimit:
		d.skip = skipCommand
	case d.bufLen > d.bufLimit:
		d.skip = skipBuffer
	}
	if d.bufLen == 0 {
		d.started = false
	}
}

// took counts n bytes of the buffer, of which left bytes are still to come.
func (d *decoder) took(n int, left uint64) {
	d.off += uint64(n)
	if left == 0 {
		d.started = false
	}
}
