// Number-masking lets a business's customers and agents phone each other without either seeing the
// other's number: both dial a Plivo number, and Plivo asks this server whom to connect.
//
//	number-masking [-config config.json] [-check]
//
// With "14156667777": "14156667778" in the customerAgentMap of config.json,
//
//	curl "http://localhost:5000/handleincoming/?From=14156667777&To=14155550100"
//
// answers with a Dial of 14156667778 that shows 14155550100 as the caller. README.md tells the rest.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }

// run is the whole program: it serves until ctx ends or a signal to stop comes, and returns the exit
// status: 0 stopped or checked, 1 could not start or failed, 2 wrong usage.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)   // so that a second Ctrl-C ends the program at once
	signal.Ignore(syscall.SIGPIPE) // or the program would end with whoever reads its log
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // to the very end: one that nobody asks for would kill

	flags := flag.NewFlagSet("number-masking", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "config.json", "the `file` with the pairings")
	check := flags.Bool("check", false, "check the file, say what is wrong with it, and exit with 0 or 1")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: number-masking [-config config.json] [-check]")
		flags.PrintDefaults()
		fmt.Fprintln(stderr, "Environment: PORT, PLIVO_AUTH_TOKEN, PUBLIC_URL; README.md describes them.")
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // the flag package has said why
	case flags.NArg() > 0:
		fmt.Fprintln(stderr, "number-masking takes flags only; to name the config file, use -config.")
		return 2
	}

	file := &ConfigFile{path: *path}
	config, err := file.Load()
	switch {
	case err == nil && *check:
		fmt.Fprintf(stdout, "%s: ok, %s\n", *path, plural(config.Pairings, "pairing"))
	case err == nil:
		err = serve(ctx, file, config, hangups, getenv, stderr)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// serve answers calls by config, or what file then says, until ctx ends, and lets running requests finish.
func serve(ctx context.Context, file *ConfigFile, config *Config, hangups <-chan os.Signal,
	getenv func(string) string, stderr io.Writer) error {
	queue := &logQueue{lines: make(chan []byte, 1<<14)}
	go queue.writeTo(stderr)
	defer queue.flush()
	log := slog.New(slog.NewTextHandler(queue, nil))
	if getenv("GOGC") == "" {
		debug.SetGCPercent(200) // a call then takes a tenth less CPU time than with Go's 100
	}

	var current atomic.Pointer[Config]
	current.Store(config)
	token := strings.TrimSpace(getenv("PLIVO_AUTH_TOKEN"))
	publicURL, err := ParsePublicURL(getenv("PUBLIC_URL"))
	if err != nil {
		return err
	}
	host := ""
	if token == "" {
		host = "127.0.0.1"
		if publicURL != "" {
			return errors.New("PUBLIC_URL is set, but PLIVO_AUTH_TOKEN is not, so anyone could ask who is " +
				"paired with whom: set both (the token is in Plivo's console), or neither")
		}
	}
	port, err := strconv.Atoi(cmp.Or(getenv("PORT"), strconv.Itoa(config.Port)))
	if err != nil || port < 1 || port > 65535 {
		return errors.New("PORT in the environment must be a number from 1 to 65535: correct or unset it")
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("cannot start: %w: set PORT to another port, above 1023, "+
			"or stop the program that has this one (on macOS often AirPlay Receiver)", err)
	}
	server := &http.Server{
		Handler:           &Handler{current.Load, token, publicURL, log},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	log.Info("listening", "address", listener.Addr(), "pairings", config.Pairings,
		"signatures_checked", token != "")
	if token == "" {
		log.Warn("PLIVO_AUTH_TOKEN is not set, so anyone on this machine can ask who is paired with whom; " +
			"a tunnel or proxy on this machine passes everyone on: set the token before you open one")
	}

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	looks := time.Tick(500 * time.Millisecond) // polling works with every editor and every file system
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case err := <-failed:
			return fmt.Errorf("stopped serving: %w", err)
		case <-hangups:
			reload(file, &current, port, log)
		case <-looks:
			if file.Edited() {
				reload(file, &current, port, log)
			}
		}
	}
	log.Info("stopping: no new requests, running ones may finish")
	finish, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(finish); err != nil {
		log.Warn("stopped with requests unfinished", "reason", err)
	}
	log.Info("stopped")
	return nil
}

// reload loads the file into current. A file that can't be loaded changes nothing.
func reload(file *ConfigFile, current *atomic.Pointer[Config], port int, log *slog.Logger) {
	config, err := file.Load()
	if err != nil {
		log.Error("config not loaded; the pairings loaded before stay in force")
		for problem := range strings.Lines(err.Error()) {
			log.Error(strings.TrimSpace(problem))
		}
		return
	}
	if config.Port != current.Load().Port && config.Port != port {
		log.Warn("app.port has changed: restart to use it, unless PORT overrides it")
	}
	current.Store(config)
	log.Info("config loaded", "pairings", config.Pairings)
}

// A logQueue writes what is logged to a writer that may be slow, stuck or gone, so that no call waits for
// whoever reads the log. Lines that don't fit or can't be written are dropped, and the log says how many.
type logQueue struct {
	lines   chan []byte
	waiting atomic.Int64 // lines that are neither written nor dropped yet
	dropped atomic.Int64 // lines that the log has not told of
}

func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line):
		q.waiting.Add(1)
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *logQueue) writeTo(w io.Writer) {
	cut := false // the last write took only a part of its line, as on a full disk
	put := func(line []byte) (whole bool) {
		if cut {
			line = append([]byte("\n"), line...)
		}
		n, _ := w.Write(line)
		if n > 0 {
			cut = line[n-1] != '\n'
		}
		return n >= len(line)-1 // if only the newline is missing, the next line brings it
	}
	for line := range q.lines {
		if !put(line) {
			q.dropped.Add(1)
		}
		const notice = "level=WARN msg=\"log lines dropped\" lines=%d\n"
		if n := q.dropped.Load(); n > 0 && put(fmt.Appendf(nil, notice, n)) {
			q.dropped.Add(-n)
		}
		q.waiting.Add(-1)
	}
}

// flush waits until all is written, but no longer than a second in which nothing is.
func (q *logQueue) flush() {
	waiting, since := q.waiting.Load(), time.Now()
	for waiting > 0 && time.Since(since) < time.Second {
		time.Sleep(time.Millisecond)
		if now := q.waiting.Load(); now != waiting {
			waiting, since = now, time.Now()
		}
	}
}
