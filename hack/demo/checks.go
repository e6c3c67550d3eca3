package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// kubectl is the real one, with a configuration, a cache and preferences of its own.
type kubectl struct{ path, home, kubeconfig string }

// run returns all that kubectl printed.
func (k kubectl) run(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, k.path, args...)
	command.Dir = dir
	command.Env = []string{"HOME=" + k.home, "KUBECONFIG=" + k.kubeconfig}
	command.SysProcAttr = ownGroup()
	out, err := command.CombinedOutput()
	return string(out), err
}

// demo prints what happens and checks it. Once a check has failed it does nothing any more, so that each step can
// be written down without looking back: err is looked at between scenes, and at the end.
type demo struct {
	*stage
	err    error
	checks int
	passed []string // checks that are not printed yet
}

// show runs kubectl before the eyes of the viewer, who has to see this text in what it prints.
func (d *demo) show(text string, args ...string) {
	if out, err := d.run(args); d.err == nil && (err != nil || !strings.Contains(out, text)) {
		d.fail("kubectl "+commandLine(args)+" prints it", text, fmt.Sprint(out, cmp.Or(err, errors.New("exit status 0"))))
	}
}

// showRefused is show for what has to fail.
func (d *demo) showRefused(text string, args ...string) {
	if out, err := d.run(args); d.err == nil && (err == nil || !strings.Contains(out, text)) {
		d.fail("kubectl "+commandLine(args)+" is refused", text, fmt.Sprint(out, cmp.Or(err, errors.New("exit status 0"))))
	}
}

func (d *demo) run(args []string) (string, error) {
	if d.err != nil {
		return "", nil
	}
	d.say("$ kubectl " + commandLine(args))
	out, err := d.kubectl.run(d.ctx, d.dir, args...)
	if d.ctx.Err() != nil {
		d.err = context.Cause(d.ctx)
		return "", nil
	}
	d.say(strings.TrimRight(out, "\n"))
	return out, err
}

// expect is a check. What it is called is printed, so it says what is true if it passes.
func (d *demo) expect(what string, want, got any) {
	switch {
	case d.err != nil:
	case reflect.DeepEqual(want, got):
		d.checks++
		d.passed = append(d.passed, what)
	default:
		d.fail(what, want, got)
	}
}

// eventually is expect for what may take a while.
func (d *demo) eventually(what string, want any, get func() any) {
	deadline := time.Now().Add(patience)
	for d.err == nil {
		got := get()
		if reflect.DeepEqual(want, got) || time.Now().After(deadline) {
			d.expect(what, want, got)
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-d.ctx.Done():
			d.err = context.Cause(d.ctx)
		}
	}
}

func (d *demo) fail(what string, want, got any) {
	d.checked()
	d.err = fmt.Errorf("this does not hold: %s\n  expected: %v\n  found:    %v", what, want, got)
}

// checked prints the checks that passed since it was last called.
func (d *demo) checked() {
	if len(d.passed) > 0 {
		d.say("  ✓ " + strings.Join(d.passed, "; ") + "\n")
		d.passed = nil
	}
}

// say prints lines, with a break where they are too long to read.
func (d *demo) say(text string) {
	if d.err == nil {
		fmt.Println(wrap(text))
	}
}

var long = regexp.MustCompile(`^(.{20,98}) +(.+)$`)

// wrap breaks lines of more than a hundred characters at spaces, and indents what follows.
func wrap(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		for utf8.RuneCountInString(line) > 100 {
			parts := long.FindStringSubmatch(line)
			if parts == nil {
				break
			}
			lines, line = append(lines, parts[1]), "    "+parts[2]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

var plain = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// commandLine writes arguments as they would be typed.
func commandLine(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		flag, value, found := strings.Cut(arg, "=")
		switch {
		case plain.MatchString(arg):
			words[i] = arg
		case found && plain.MatchString(flag):
			words[i] = flag + "='" + value + "'"
		default:
			words[i] = "'" + arg + "'"
		}
	}
	return strings.Join(words, " ")
}
