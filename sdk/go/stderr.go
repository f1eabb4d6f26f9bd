package pipeplug

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

const (
	keptLines  = 20   // of a plugin's standard error
	keptLine   = 1000 // bytes of each
	shownLines = 5    // in the error of a start
)

// lastLines keeps the last lines of what is written to it.
type lastLines struct {
	mu      sync.Mutex
	lines   []string // complete ones
	partial []byte   // what follows them
	crash   string   // the last line that tells of a panic
	isCut   bool     // it is one of Rust, whose message follows
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, ends := bytes.Cut(rest, []byte("\n"))
		if room := keptLine - len(l.partial); len(line) > room {
			line = line[:room]
		}
		l.partial = append(l.partial, line...)
		if ends {
			l.add(strings.TrimRight(string(l.partial), " \t\r"))
			l.partial = l.partial[:0]
		}
		rest = after
	}
	return len(p), nil
}

func (l *lastLines) add(line string) {
	if line == "" {
		return
	}
	if l.isCut {
		l.crash += " " + line
		l.isCut = false
	}
	switch {
	case strings.HasPrefix(line, "thread '") && strings.Contains(line, " panicked at "):
		l.crash, l.isCut = line, strings.HasSuffix(line, ":")
	case strings.HasPrefix(line, "panic: "), strings.HasPrefix(line, "fatal error: "):
		l.crash = line
	}
	if len(l.lines) == keptLines {
		copy(l.lines, l.lines[1:])
		l.lines = l.lines[:keptLines-1]
	}
	l.lines = append(l.lines, line)
}

// get returns the last lines without empty ones, and the line that tells of a panic.
func (l *lastLines) get() (lines []string, crash string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines = append(lines, l.lines...)
	if partial := strings.TrimSpace(string(l.partial)); partial != "" {
		lines = append(lines, partial)
	}
	return lines, l.crash
}

// lastOnStderr puts the last lines of standard error behind a message.
func lastOnStderr(lines []string) string {
	if len(lines) == 0 {
		return ", nothing on its stderr"
	}
	if len(lines) > shownLines {
		lines = lines[len(lines)-shownLines:]
	}
	return ", last on its stderr: " + printable(strings.Join(lines, " | "))
}

// printable escapes what is no character to print, so that it changes no terminal and adds no line.
func printable(text string) string {
	var out strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		out.WriteString(quoted[1 : len(quoted)-1])
	}
	return out.String()
}

// careless is a writer whose errors do not keep a plugin from writing.
type careless struct{ to io.Writer }

func (w *careless) Write(p []byte) (int, error) {
	_, _ = w.to.Write(p)
	return len(p), nil
}
