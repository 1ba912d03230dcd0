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
	"runtime"
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
	context.AfterFunc(ctx, stop)   // so that a second Ctrl-C does not wait for running requests
	signal.Ignore(syscall.SIGPIPE) // or the program would end with whoever reads its log
	log := newLogQueue(stderr)
	defer log.close()

	flags := flag.NewFlagSet("number-masking", flag.ContinueOnError)
	flags.SetOutput(log)
	path := flags.String("config", "config.json", "the `file` with the pairings")
	check := flags.Bool("check", false, "check the file, say what is wrong with it, and exit with 0 or 1")
	flags.Usage = func() {
		fmt.Fprintln(log, "Usage: number-masking [-config config.json] [-check]")
		flags.PrintDefaults()
		fmt.Fprintln(log, "Environment: PORT, PLIVO_AUTH_TOKEN, PUBLIC_URL; README.md describes them.")
	}
	err := flags.Parse(args)
	file := &ConfigFile{path: *path}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // the flag package has said why
	case flags.NArg() > 0:
		fmt.Fprintln(log, "number-masking takes flags only; to name the config file, use -config.")
		return 2
	case *check:
		var config *Config
		if config, err = file.Load(); err == nil {
			fmt.Fprintf(stdout, "%s: ok, %s\n", *path, plural(config.Pairings, "pairing"))
		}
	default:
		err = serve(ctx, file, getenv, slog.New(slog.NewTextHandler(log, nil)))
	}
	if err != nil {
		fmt.Fprintln(log, err)
		return 1
	}
	return 0
}

// serve answers calls until ctx ends, then lets running requests finish.
func serve(ctx context.Context, file *ConfigFile, getenv func(string) string, log *slog.Logger) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	// Garbage is collected when 48 MB and a quarter of what is in use have gathered. Go's default, as much
	// as is in use, means every few calls with a small config, and twice the memory with a large one.
	ballast := make([]byte, 192<<20) // counts as in use, but takes no memory, as nothing touches it
	defer runtime.KeepAlive(ballast)
	defer debug.SetGCPercent(debug.SetGCPercent(25))

	config, err := file.Load()
	if err != nil {
		return err
	}
	var current atomic.Pointer[Config]
	current.Store(config)
	handler := &Handler{config: current.Load, log: log}
	host := "127.0.0.1"
	if token := strings.TrimSpace(getenv("PLIVO_AUTH_TOKEN")); token != "" {
		host = ""
		handler.token = token
		if handler.publicURL, err = ParsePublicURL(getenv("PUBLIC_URL")); err != nil {
			return err
		}
	}
	port, err := strconv.Atoi(cmp.Or(getenv("PORT"), strconv.Itoa(config.Port)))
	if err != nil || port < 1 || port > 65535 {
		return errors.New("PORT in the environment must be a number from 1 to 65535: correct or unset it")
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot start: %w; another program has the port "+
			"(on macOS often AirPlay Receiver): stop that, or set PORT to another", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("cannot start: %w; ports below 1024 are for root: set PORT to a higher one", err)
	case err != nil:
		return fmt.Errorf("cannot start: %w", err)
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	log.Info("listening", "address", listener.Addr(), "pairings", config.Pairings,
		"signatures_checked", handler.token != "")
	if handler.token == "" {
		log.Warn("PLIVO_AUTH_TOKEN is not set, so anyone who reaches this server can ask who is paired " +
			"with whom; it listens on localhost only. Before you expose it, set the token of Plivo's console")
	}

	go follow(ctx, file, &current, hangups, log)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("stopped serving: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping: no new requests, running ones may finish")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Warn("stopped with requests unfinished", "reason", err)
		_ = server.Close()
	}
	log.Info("stopped")
	return nil
}

// follow loads the file into current at each edit and each SIGHUP. A file that can't be loaded changes
// nothing. It finds edits by looking, which works with every editor and every file system.
func follow(ctx context.Context, file *ConfigFile, current *atomic.Pointer[Config],
	hangups <-chan os.Signal, log *slog.Logger) {
	look := time.NewTicker(500 * time.Millisecond) // an edit takes two looks, so a second
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		case <-look.C:
			if !file.Edited() {
				continue
			}
		}
		config, err := file.Load()
		if err != nil {
			log.Error("config not loaded; the pairings loaded before stay in force")
			for problem := range strings.Lines(err.Error()) {
				log.Error(strings.TrimSpace(problem))
			}
			continue
		}
		if config.Port != current.Load().Port {
			log.Warn("app.port has changed: restart to use it, unless PORT overrides it")
		}
		current.Store(config)
		log.Info("config loaded", "pairings", config.Pairings)
	}
}

// A logQueue writes what is logged to a writer that may be slow, stuck or gone, so that no call waits for
// whoever reads the log. Lines that don't fit or can't be written are dropped, and the log says how many.
type logQueue struct {
	lines   chan []byte
	dropped atomic.Int64
	closing chan struct{} // closed when nothing more is to come
	written chan struct{} // closed when all that came is written
}

func newLogQueue(w io.Writer) *logQueue {
	q := &logQueue{make(chan []byte, 1<<14), atomic.Int64{}, make(chan struct{}), make(chan struct{})}
	go q.writeTo(w)
	return q
}

func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *logQueue) writeTo(w io.Writer) {
	defer close(q.written)
	for open := true; open; {
		var lines []byte
		select {
		case lines = <-q.lines:
			time.Sleep(10 * time.Millisecond) // to wake up for each line would cost more than to write it
		case <-q.closing:
			open = false
		}
		for range len(q.lines) {
			lines = append(lines, <-q.lines...)
		}
		dropped := q.dropped.Swap(0)
		lost := dropped + int64(bytes.Count(lines, []byte("\n")))
		if dropped > 0 {
			lines = fmt.Appendf(nil, "level=WARN msg=%q lines=%d\n%s", "log lines dropped", dropped, lines)
		}
		if _, err := w.Write(lines); err != nil {
			q.dropped.Add(lost)
		}
	}
}

// close waits until all is written, a second at most. What is logged later is lost.
func (q *logQueue) close() {
	close(q.closing)
	select {
	case <-q.written:
	case <-time.After(time.Second):
	}
}
