package pipeplug

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// spawnProblem says why the system has not started a program: what the errno alone does not tell,
// and what to do.
func spawnProblem(cmd *exec.Cmd, err error) string {
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Sprintf("no plugin %q in the directories of PATH; a file is named with a slash, as in ./%[1]s", lookup.Name)
		}
		return fmt.Sprintf("plugin %q was found in PATH by a relative directory, which is not used (%v); a file is named with a slash, as in ./%[1]s", lookup.Name, lookup.Err)
	}
	if cmd.Dir != "" {
		if info, err := os.Stat(cmd.Dir); err != nil || !info.IsDir() {
			if err == nil {
				err = syscall.ENOTDIR
			}
			return fmt.Sprintf("plugin %q cannot start in the working directory %q (Host.Dir): %v", cmd.Path, cmd.Dir, reason(err))
		}
	}
	if problem := nulProblem(cmd); problem != "" {
		return problem
	}
	path := cmd.Path // as the child sees it
	if !filepath.IsAbs(path) {
		path = filepath.Join(cmd.Dir, path) + strings.Repeat("/", len(path)-len(strings.TrimRight(path, "/")))
		if whole, err := filepath.Abs(path); err == nil {
			path = whole + path[len(strings.TrimRight(path, "/")):]
		}
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		if problem := missingFile(path); problem != "" {
			if cmd.Dir != "" && !filepath.IsAbs(cmd.Path) {
				problem += "; a relative path begins in Host.Dir"
			}
			return fmt.Sprintf("no plugin at %q: %s", path, problem)
		}
	}
	return fmt.Sprintf("plugin %q %s", path, execProblem(path, err))
}

// nulProblem says what of a command has a NUL, which the system cannot pass on; "" for nothing. It
// does not tell values, which may be secret.
func nulProblem(cmd *exec.Cmd) string {
	has := func(text string) bool { return strings.Contains(text, "\x00") }
	if has(cmd.Path) {
		return fmt.Sprintf("the path of plugin %q has a NUL: a path cannot have one", cmd.Path)
	}
	_, args := splitArgs(cmd.Args[1:]) // without those of the protocol
	for i, arg := range args {
		if has(arg) {
			return fmt.Sprintf("plugin %q cannot be given its argument %d: that has a NUL", cmd.Path, i+1)
		}
	}
	for _, variable := range cmd.Env {
		if name, _, _ := strings.Cut(variable, "="); has(variable) {
			if has(name) {
				return fmt.Sprintf("plugin %q cannot be given a variable (Host.Env) whose name has a NUL", cmd.Path)
			}
			return fmt.Sprintf("plugin %q cannot be given the variable %q (Host.Env): its value has a NUL", cmd.Path, name)
		}
	}
	return ""
}

// reason is an error without what its text repeats.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// missingFile says why nothing is at a path; "" if something is.
func missingFile(path string) string {
	for part := filepath.Dir(path); ; part = filepath.Dir(part) {
		if info, err := os.Stat(part); err == nil {
			if !info.IsDir() {
				return fmt.Sprintf("%q is not a directory; name the file itself, without a `/` behind it", part)
			}
			break
		}
		if part == filepath.Dir(part) {
			break
		}
	}
	if _, err := os.Stat(path); err == nil {
		return ""
	}
	if target, err := os.Readlink(path); err == nil {
		return fmt.Sprintf("it is a symbolic link to %q, which does not exist; check the path", target)
	}
	return "no such file; check the path"
}

// execProblem says why a file that is there was not executed.
func execProblem(path string, err error) string {
	info, statErr := os.Stat(path)
	found, inspectErr := inspect(path)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		if interpreter := missingInterpreter(path); strings.HasSuffix(interpreter, "\r") {
			return fmt.Sprintf("needs the interpreter %q, which does not exist: its first line ends in CR LF, convert the file to Unix line ends", interpreter)
		} else if interpreter != "" {
			return fmt.Sprintf("needs the interpreter %q, which does not exist: install it, or correct the plugin's `#!` line or build", interpreter)
		}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		switch {
		case statErr != nil:
			return fmt.Sprintf("cannot be reached: %v", reason(statErr))
		case info.IsDir():
			return "is a directory: name the executable file inside it"
		case !info.Mode().IsRegular():
			return "is a FIFO, a socket or a device, which cannot be executed: name the file of the program"
		case info.Mode()&0o111 == 0:
			return fmt.Sprintf("is not executable (mode %04o): run `chmod +x` on it", info.Mode().Perm())
		case info.Mode()&0o111 != 0o111 && syscall.Access(path, 1) != nil:
			return fmt.Sprintf("is not executable for this user (mode %04o): run `chmod a+rx` on it, or take a copy", info.Mode().Perm())
		case isNoexec(path):
			return "is on a file system that is mounted noexec: move it to another one, or remount that"
		}
		if interpreter := closedInterpreter(path); interpreter != "" {
			return fmt.Sprintf("needs the interpreter %q, which is no file that this user may execute: correct its mode, or the `#!` line", interpreter)
		}
		return fmt.Sprintf("may not be executed (%v): check the directories above it and its interpreter", reason(err))
	case errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EINVAL):
		switch ours := ownMachine(); {
		case inspectErr != nil:
		case found.problem != "":
			return fmt.Sprintf("is not a program: %s; start a script with a line like `#!/bin/sh`", found.problem)
		case found.machine != "" && ours != "" && found.machine != ours:
			return fmt.Sprintf("is built for another machine (%s), this one is %s: build it for this one", found.machine, ours)
		case found.machine != "":
			return "is not a program: its ELF header is damaged"
		default:
			return fmt.Sprintf("is not a program: the interpreter of its `#!` line, %q, is not one", found.interpreter)
		}
	case errors.Is(err, syscall.ETXTBSY):
		return "is open for writing: close the file, or wait for its copy to end, and start it again"
	case errors.Is(err, syscall.E2BIG):
		return "cannot be given its arguments and variables: together they are longer than the system allows"
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Sprintf("cannot be started: the limit of processes is reached (%v): end some, or raise the limit of the user (`ulimit -u`), of the container (`--pids-limit`) or of the service (TasksMax=)", reason(err))
	}
	return systemProblem(err)
}

// systemProblem says what the system lacks, or has refused.
func systemProblem(err error) string {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return fmt.Sprintf("was not started: there is no free descriptor (%v): run fewer plugins, or raise the limit with `ulimit -n`", reason(err))
	}
	return fmt.Sprintf("cannot be started: %v", err)
}

// ownMachine is that of this program; "" if it is no ELF file.
func ownMachine() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	own, _ := inspect(path)
	return own.machine
}
