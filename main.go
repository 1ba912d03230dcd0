// Number-masking lets a business's customers and agents phone each other
// without either seeing the other's number. It is the answer URL of a Plivo
// application; README.md tells how to set that up.
package main

import (
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

// run is the whole program: it serves until ctx ends or a signal to stop
// comes, and returns the exit status: 0 stopped or checked, 1 could not start
// or failed, 2 wrong usage.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // so that a second Ctrl-C does not wait for running requests

	flags := flag.NewFlagSet("number-masking", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "config.json", "the `file` with the pairings")
	check := flags.Bool("check", false, "check the file, say what is wrong with it, and exit with 0 or 1")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: number-masking [-config config.json] [-check]")
		flags.PrintDefaults()
		fmt.Fprintln(stderr, "Environment: PORT overrides app.port of the file; PLIVO_AUTH_TOKEN lets only Plivo in;\n"+
			"PUBLIC_URL is where Plivo reaches this server, if the requests do not tell.")
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // the flag package has said why
	case flags.NArg() > 0:
		fmt.Fprintln(stderr, "number-masking takes no arguments, only flags; to name the config file, use -config.")
		flags.Usage()
		return 2
	}

	file := &ConfigFile{path: *path}
	var err error
	if *check {
		var config *Config
		if config, err = file.Load(); err == nil {
			fmt.Fprintf(stdout, "%s: ok, %d pairings\n", *path, config.Pairings())
		}
	} else {
		err = serve(ctx, file, getenv, slog.New(slog.NewTextHandler(stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// serve answers calls until ctx ends, then lets running requests finish.
func serve(ctx context.Context, file *ConfigFile, getenv func(string) string, log *slog.Logger) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	file.Edited()
	config, err := file.Load()
	if err != nil {
		return err
	}
	var current atomic.Pointer[Config]
	current.Store(config)
	settle()

	port := config.Port
	if text := getenv("PORT"); text != "" {
		if port, err = strconv.Atoi(text); err != nil || port < 1 || port > 65535 {
			return errors.New("PORT in the environment must be a whole number from 1 to 65535; correct or unset it")
		}
	}
	handler := &Handler{config: current.Load, log: log}
	host := "127.0.0.1"
	if token := strings.TrimSpace(getenv("PLIVO_AUTH_TOKEN")); token != "" {
		if handler.verifier, err = NewVerifier(token, getenv("PUBLIC_URL")); err != nil {
			return err
		}
		host = ""
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; another program has the port (on macOS often AirPlay Receiver): stop that, or set PORT to another", err)
	}
	if err != nil {
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
	log.Info("listening", "address", listener.Addr(), "pairings", config.Pairings(), "signatures_checked", handler.verifier != nil)
	if handler.verifier == nil {
		log.Warn("PLIVO_AUTH_TOKEN is not set, so anyone who reaches this server can ask who is paired with whom. " +
			"It listens on localhost only; before you expose it, set PLIVO_AUTH_TOKEN to the Auth Token of the Plivo console")
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

// follow keeps current up with edits of the file: it polls, which works with
// every editor and mount, and loads at once on SIGHUP. A file that cannot be
// loaded changes nothing.
func follow(ctx context.Context, file *ConfigFile, current *atomic.Pointer[Config], hangups <-chan os.Signal, log *slog.Logger) {
	poll := time.NewTicker(500 * time.Millisecond) // two looks: an edit is in force after a second
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			file.Forget()
		case <-poll.C:
			if !file.Edited() {
				continue
			}
		}
		config, err := file.Load()
		switch {
		case errors.Is(err, ErrKnown):
		case err != nil:
			log.Error("config not loaded; the pairings in force stay so")
			for problem := range strings.Lines(err.Error()) {
				log.Error(strings.TrimSpace(problem))
			}
		default:
			if config.Port != current.Load().Port {
				log.Warn("app.port has changed; it counts from the next start on, unless PORT overrides it")
			}
			current.Store(config)
			settle()
			log.Info("config loaded", "pairings", config.Pairings())
		}
	}
}

// settle gives back the memory that loading took and lets 64 MB gather before
// the next collection. Go's default, as much as is in use, means every few
// requests with a small config and twice the memory with a large one.
func settle() {
	debug.FreeOSMemory()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	debug.SetGCPercent(int(64 << 20 * 100 / max(memory.HeapAlloc, 4<<20))) // Go scales its least heap, 4 MB, too
}
