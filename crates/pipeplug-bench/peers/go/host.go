package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// compared is up to where a reply is compared byte by byte; above, its length has to do.
const compared = 64 * 1024

func check(sent, reply []byte) error {
	if len(reply) != len(sent) {
		return fmt.Errorf("sent %d bytes, but %d came back", len(sent), len(reply))
	}
	if len(sent) <= compared && !bytes.Equal(reply, sent) {
		return fmt.Errorf("%d other bytes came back than were sent", len(sent))
	}
	return nil
}

// measured is the timed part, in numbers; latencies only where they were asked for.
type measured struct {
	seconds   float64
	count     int
	latencies []time.Duration
}

// driver is who reads and writes this program's stdin and stdout.
type driver struct{ in *bufio.Reader }

func (d driver) begin(pid int) error {
	fmt.Printf("BEGIN %d\n", pid)
	if line, _ := d.in.ReadString('\n'); line == "" {
		return errors.New("the driver went away after BEGIN")
	}
	return nil
}

func (d driver) conclude(m *measured, notAvailable string) error {
	if m == nil {
		fmt.Println("NA", notAvailable)
	} else {
		result := map[string]interface{}{"seconds": m.seconds, "count": m.count}
		if n := len(m.latencies); n > 0 {
			sort.Slice(m.latencies, func(a, b int) bool { return m.latencies[a] < m.latencies[b] })
			at := func(quantile float64) float64 {
				rank := int(math.Ceil(quantile * float64(n)))
				return float64(m.latencies[rank-1].Nanoseconds()) / 1e3
			}
			result["p50"], result["p90"], result["p99"] = at(0.5), at(0.9), at(0.99)
			result["p999"], result["max"] = at(0.999), at(1)
		}
		text, err := json.Marshal(result)
		if err != nil {
			return err
		}
		fmt.Printf("END %s\n", text)
	}
	for {
		line, err := d.in.ReadString('\n')
		if strings.TrimSpace(line) == "quit" || err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// host measures what the driver asks for.
func host(start func() (*peer, error)) error {
	d := driver{bufio.NewReader(os.Stdin)}
	line, err := d.in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("cannot read the command: %w", err)
	}
	command, numbers, err := parse(line)
	if err != nil {
		return fmt.Errorf("bad command %q: %w", strings.TrimSpace(line), err)
	}
	if command == "spawn" {
		m, err := d.spawn(start, numbers[0])
		if err != nil {
			return err
		}
		return d.conclude(m, "")
	}
	p, err := start()
	if err != nil {
		return err
	}
	defer p.stop()
	chunk := bytes.Repeat([]byte{'x'}, numbers[len(numbers)-1])
	var m *measured
	notAvailable := ""
	switch command {
	case "sequential":
		m, err = d.calls(p, chunk, 1, numbers[0], numbers[1])
	case "bulk":
		m, err = d.calls(p, chunk, 1, warmup(numbers[0]), numbers[0])
	case "callers", "tasks":
		// A goroutine is both: it blocks, and it is no thread.
		m, err = d.calls(p, chunk, numbers[0], warmup(numbers[1]), numbers[1])
	case "flight":
		m, err = d.atOnce(p, numbers[1], func(calls int) error { return p.flight(numbers[0], calls, chunk) })
	case "stream":
		if notAvailable = "there are no streams"; p.stream != nil {
			m, err = d.atOnce(p, numbers[1], func(chunks int) error { return p.stream(numbers[0], chunks, chunk) })
		}
	case "oneway":
		if notAvailable = "there are no one-ways"; p.oneWays != nil {
			m, err = d.atOnce(p, numbers[0], func(count int) error { return p.oneWays(count, chunk) })
		}
	}
	if err != nil {
		return err
	}
	return d.conclude(m, notAvailable)
}

// parse reads a command: its name, and as many numbers as it takes, the last (but for spawn) a size.
func parse(line string) (string, []int, error) {
	takes := map[string]int{
		"sequential": 3, "callers": 3, "tasks": 3, "flight": 3, "stream": 3, "oneway": 2, "bulk": 2, "spawn": 1,
	}
	words := strings.Fields(line)
	if len(words) == 0 || takes[words[0]] == 0 {
		return "", nil, errors.New("nothing is called so")
	}
	if len(words)-1 != takes[words[0]] {
		return "", nil, fmt.Errorf("it takes %d numbers", takes[words[0]])
	}
	var numbers []int
	for _, word := range words[1:] {
		number, err := strconv.Atoi(word)
		if err != nil || number < 0 {
			return "", nil, fmt.Errorf("%q is no number", word)
		}
		numbers = append(numbers, number)
	}
	return words[0], numbers, nil
}

func warmup(calls int) int {
	if calls < 20 {
		return 1
	}
	return calls / 20
}

func share(calls, callers, caller int) int {
	if caller < calls%callers {
		return calls/callers + 1
	}
	return calls / callers
}

func (d driver) spawn(start func() (*peer, error), times int) (*measured, error) {
	if err := d.begin(0); err != nil {
		return nil, err
	}
	m := &measured{count: times}
	chunk := bytes.Repeat([]byte{'x'}, 64)
	for i := 0; i < times; i++ {
		from := time.Now()
		p, err := start()
		if err != nil {
			return nil, err
		}
		reply, err := p.call(chunk)
		took := time.Since(from)
		p.stop()
		if err == nil {
			err = check(chunk, reply)
		}
		if err != nil {
			return nil, err
		}
		m.latencies = append(m.latencies, took)
		m.seconds += took.Seconds()
	}
	return m, nil
}

// calls has that many goroutines make calls, each one at a time.
func (d driver) calls(p *peer, chunk []byte, callers, warm, calls int) (*measured, error) {
	latencies := make([][]time.Duration, callers)
	run := func(calls int, timed bool) error {
		failed := make(chan error, callers)
		var all sync.WaitGroup
		for caller := 0; caller < callers; caller++ {
			all.Add(1)
			go func(caller, calls int) {
				defer all.Done()
				var took []time.Duration
				if timed {
					took = make([]time.Duration, 0, calls)
				}
				last := time.Now()
				for i := 0; i < calls; i++ {
					reply, err := p.call(chunk)
					if err == nil {
						err = check(chunk, reply)
					}
					if err != nil {
						failed <- err
						return
					}
					if timed {
						now := time.Now()
						took = append(took, now.Sub(last))
						last = now
					}
				}
				latencies[caller] = took
			}(caller, share(calls, callers, caller))
		}
		all.Wait()
		select {
		case err := <-failed:
			return err
		default:
			return nil
		}
	}
	if err := run(warm, false); err != nil {
		return nil, err
	}
	if err := d.begin(p.pid); err != nil {
		return nil, err
	}
	from := time.Now()
	if err := run(calls, true); err != nil {
		return nil, err
	}
	m := &measured{seconds: time.Since(from).Seconds(), count: calls}
	for _, took := range latencies {
		m.latencies = append(m.latencies, took...)
	}
	return m, nil
}

func (d driver) atOnce(p *peer, count int, run func(count int) error) (*measured, error) {
	if err := run(warmup(count)); err != nil {
		return nil, err
	}
	if err := d.begin(p.pid); err != nil {
		return nil, err
	}
	from := time.Now()
	if err := run(count); err != nil {
		return nil, err
	}
	return &measured{seconds: time.Since(from).Seconds(), count: count}, nil
}
