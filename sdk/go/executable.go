package pipeplug

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// executable is what the first bytes of a file say of it.
type executable struct {
	interpreter string // of its `#!` line, or its dynamic loader
	machine     string // that it is built for, in words, if it is an ELF file
	problem     string // why it is no program, in words
}

// headSize is how much of a file the kernel reads to find its kind (BINPRM_BUF_SIZE).
const headSize = 256

// inspect looks at a regular file.
func inspect(path string) (executable, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return executable{}, err
	}
	file, err := os.Open(path)
	if err != nil {
		return executable{}, err
	}
	defer file.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(file, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return executable{}, err
	}
	head = head[:n]
	isText := func(start string) bool { return bytes.HasPrefix(head, []byte(start)) }
	switch {
	case n == 0:
		return executable{problem: "it is empty"}, nil
	case isText("#!"):
		return script(head), nil
	case isText(elf.ELFMAG):
		return program(file), nil
	case isText("\xef\xbb\xbf#!"):
		return executable{problem: "a byte order mark stands before its `#!` line, which hides that from the kernel: save it as UTF-8 without one"}, nil
	case isText("\xff\xfe"), isText("\xfe\xff"):
		return executable{problem: "it is UTF-16 text, by its byte order mark: save it as UTF-8 without one"}, nil
	case isText("MZ"):
		return executable{problem: "it is a Windows program"}, nil
	case isText("\xcf\xfa\xed\xfe"), isText("\xce\xfa\xed\xfe"):
		return executable{problem: "it is a macOS program"}, nil
	}
	return executable{problem: "it has neither a `#!` line nor an ELF header"}, nil
}

func script(head []byte) executable {
	line, _, ends := bytes.Cut(head[2:], []byte("\n"))
	line = bytes.TrimLeft(line, " \t")
	end := bytes.IndexAny(line, " \t")
	switch {
	case end >= 0:
		line = line[:end]
	case !ends && len(head) == headSize:
		return executable{problem: "its `#!` line is longer than the 256 bytes that the kernel reads, which takes a shorter path to the interpreter"}
	}
	if len(line) == 0 || string(line) == "\r" {
		return executable{problem: "its `#!` line names no interpreter"}
	}
	return executable{interpreter: string(line)}
}

func program(file io.ReaderAt) executable {
	var head [20]byte
	if _, err := file.ReadAt(head[:], 0); err != nil {
		return executable{problem: "its ELF header is damaged"}
	}
	var number uint16
	order := "little-endian"
	switch elf.Data(head[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
		number = uint16(head[18]) | uint16(head[19])<<8
	case elf.ELFDATA2MSB:
		order, number = "big-endian", uint16(head[19])|uint16(head[18])<<8
	default:
		return executable{problem: "its ELF header is damaged"}
	}
	bits := 32
	if elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64 {
		bits = 64
	}
	name := strings.ToLower(strings.TrimPrefix(elf.Machine(number).String(), "EM_"))
	found := executable{machine: fmt.Sprintf("%s, %d bits, %s", name, bits, order)}
	if whole, err := elf.NewFile(file); err == nil { // one for another machine may be damaged as well
		for _, segment := range whole.Progs {
			if segment.Type != elf.PT_INTERP || segment.Filesz > 4096 {
				continue
			}
			if path, err := io.ReadAll(segment.Open()); err == nil {
				found.interpreter = strings.TrimRight(string(path), "\x00")
			}
		}
	}
	return found
}

// missingInterpreter is the first program that the kernel needs to run a file and does not find.
func missingInterpreter(path string) string {
	for depth := 0; depth < 5; depth++ { // as the kernel follows scripts
		found, err := inspect(path)
		if err != nil || found.interpreter == "" {
			return ""
		}
		if _, err := os.Stat(found.interpreter); errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return found.interpreter
		}
		path = found.interpreter
	}
	return ""
}

// closedInterpreter is the first program that the kernel needs to run a file and may not execute.
func closedInterpreter(path string) string {
	for depth := 0; depth < 5; depth++ {
		found, err := inspect(path)
		if err != nil || found.interpreter == "" {
			return ""
		}
		path = found.interpreter
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || syscall.Access(path, 1) != nil {
			return path
		}
	}
	return ""
}

// endsInCR tells whether the `#!` line of a script ends with a carriage return: that belongs to the
// last word for the kernel.
func endsInCR(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, headSize)
	n, _ := io.ReadFull(file, head)
	line, _, ends := bytes.Cut(head[:n], []byte("\n"))
	return ends && bytes.HasPrefix(line, []byte("#!")) && bytes.HasSuffix(line, []byte("\r"))
}
