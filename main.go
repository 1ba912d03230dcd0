// Number-masking lets a business's customers and agents phone each other without either seeing the
// other's number: both dial a Plivo number, and Plivo asks this server whom to connect.
//
//	number-masking [-config config.json] [-check]
//
// With "14156667777": "14156667778" in the customerAgentMap of config.json,
//
//	curl "http://localhost:5000/handleincoming/?From=14156667777&To=14155550100"
//
// answers with a Dial of 14156667778 that shows 14155550100 as the caller. README.md has the rest.
package main

import (
	"bytes"
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

// run is the whole program. It returns the exit status: 0 stopped, checked or -help, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("number-masking", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "config.json", "the `file` with the pairings")
	check := flags.Bool("check", false, "check the file, say what is wrong with it, and exit with 0 or 1")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: number-masking [-config config.json] [-check]")
		flags.PrintDefaults()
		fmt.Fprintln(stderr, "Environment: PORT, PLIVO_AUTH_TOKEN, PUBLIC_URL; README.md describes them.")
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // the flag package has said why
	case flags.NArg() > 0:
		fmt.Fprintln(stderr, "number-masking takes flags only; to name the config file, use -config.")
		return 2
	}

	file := &ConfigFile{path: *path}
	if *check {
		config, err := file.Load()
		if err != nil {
			fmt.Fprintln(stderr, err)
			return 1
		}
		fmt.Fprintf(stdout, "%s: ok, %s\n", *path, plural(config.PairingCount, "pairing"))
		return 0
	}
	if err := listen(ctx, file, getenv, stderr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// listen opens the port that the environment or the file gives, and serves until ctx or a signal ends it.
func listen(ctx context.Context, file *ConfigFile, getenv func(string) string, stderr io.Writer) error {
	signal.Ignore(syscall.SIGPIPE) // or a closed log pipe would end the program
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, syscall.SIGHUP) // never undone, or a SIGHUP would end the program
	queue := &logQueue{w: stderr, lines: make(chan []byte, 1<<14)}
	go queue.writeLines()
	defer queue.flush()
	log := slog.New(slog.NewTextHandler(queue, nil))

	handler, err := NewHandler(getenv("PLIVO_AUTH_TOKEN"), getenv("PUBLIC_URL"), log)
	if err != nil {
		return err
	}
	config, err := file.Load()
	if err != nil {
		return err
	}
	handler.config.Store(config)
	debug.FreeOSMemory() // loading took several times the size of the file
	port := config.Port
	if text := strings.TrimSpace(getenv("PORT")); text != "" {
		port, _ = strconv.Atoi(text) // 0 if it is not a number
		if port < 1 || port > 65535 {
			return errors.New("PORT in the environment must be a number from 1 to 65535: correct or unset it")
		}
	}
	host := ""
	if handler.token == "" {
		host = "127.0.0.1"
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(200) // calls then take a tenth less CPU time than with Go's default of 100
	}

	// From here on, a signal to stop lets running requests finish; a second one ends the program at once.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("cannot start: %w: set PORT to another port, above 1023, "+
			"or stop the program that has this one (on macOS often AirPlay Receiver)", err)
	}
	log.Info("listening", "address", listener.Addr(), "pairings", config.PairingCount,
		"signatures_checked", handler.token != "")
	if handler.token == "" {
		log.Warn("PLIVO_AUTH_TOKEN is not set, so anyone on this machine can ask who is paired with whom; " +
			"a tunnel or proxy on this machine lets everyone in: set the token before you open one")
	}
	loads := make(chan Loaded, 1) // buffered, so that Watch can send one that serve no longer takes
	go file.Watch(ctx, reloads, loads)
	if err := serve(ctx, listener, handler, loads); err != nil {
		return err
	}
	queue.flush() // a full queue would drop the line that follows, the last
	log.Info("stopped")
	return nil
}

// serve answers calls until ctx ends, and then lets running requests finish. It also puts each loaded Config
// into force: here rather than in Watch, so that no load is logged after serve has returned.
func serve(ctx context.Context, listener net.Listener, handler *Handler, loads <-chan Loaded) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(handler.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	portAtStart := handler.config.Load().Port
	for {
		select {
		case load := <-loads:
			use(load, handler, portAtStart)
			go debug.FreeOSMemory() // as after the first load; in the background, since it is slow
		case err := <-failed:
			return fmt.Errorf("stopped serving: %w", err)
		case <-ctx.Done():
			handler.log.Info("stopping: no new requests are taken, running ones may finish")
			finish, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := server.Shutdown(finish); err != nil {
				handler.log.Warn("stopped with requests unfinished", "reason", err)
			}
			return nil
		}
	}
}

// use applies a loaded Config. A file that could not be loaded changes nothing.
func use(load Loaded, handler *Handler, portAtStart int) {
	if load.err != nil {
		handler.log.Error("config not loaded; the previous pairings stay in force")
		for problem := range strings.Lines(load.err.Error()) {
			handler.log.Error(strings.TrimSpace(problem))
		}
		return
	}
	if load.config.Port != portAtStart {
		handler.log.Warn("app.port has changed: restart to use it, unless PORT overrides it")
	}
	handler.config.Store(load.config)
	handler.log.Info("config loaded", "pairings", load.config.PairingCount)
}

// A logQueue passes lines on to a writer that may be slow, stuck or gone, so that no call waits for whoever
// reads the log. Lines that don't fit or can't be written are dropped, and the log says how many.
type logQueue struct {
	w       io.Writer
	lines   chan []byte
	waiting atomic.Int64 // lines that are neither written nor dropped yet
	dropped atomic.Int64 // lines whose loss is not logged yet
	cut     bool         // what was written last lacks its newline, with which the next line begins
}

// Write puts a line into the queue, and never waits.
func (q *logQueue) Write(line []byte) (int, error) {
	q.waiting.Add(1)
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.waiting.Add(-1)
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *logQueue) writeLines() {
	for line := range q.lines {
		if !q.writeLine(line) {
			q.dropped.Add(1)
		}
		const notice = "time=%s level=WARN msg=\"log lines dropped\" lines=%d\n"
		now := time.Now().Format(time.RFC3339)
		if n := q.dropped.Load(); n > 0 && q.writeLine(fmt.Appendf(nil, notice, now, n)) {
			q.dropped.Add(-n)
		}
		q.waiting.Add(-1)
	}
}

// writeLine reports whether the line was written. After one that was cut, it writes a newline first.
func (q *logQueue) writeLine(line []byte) bool {
	if q.cut {
		line = append([]byte("\n"), line...)
	}
	n, _ := q.w.Write(line)
	if n > 0 {
		q.cut = line[n-1] != '\n'
	}
	return n >= len(line)-1 // if only its newline is missing, the next call writes it
}

// flush waits until all lines are written, but for no longer than a second without progress.
func (q *logQueue) flush() {
	waiting := q.waiting.Load()
	for idle := 0; waiting > 0 && idle < 1000; idle++ { // milliseconds
		time.Sleep(time.Millisecond)
		if now := q.waiting.Load(); now < waiting {
			waiting, idle = now, 0
		}
	}
}
