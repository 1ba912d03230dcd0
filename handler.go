package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/plivo/plivo-go/v7/xml"
)

// A Handler answers Plivo's requests to the answer URL, /handleincoming/, and
// a load balancer's to /healthz.
type Handler struct {
	config func() *Config // returns the one in force; a request asks once
	log    *slog.Logger
}

// ServeHTTP matches paths itself because http.ServeMux redirects unclean ones,
// and a redirected POST loses its form.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // an answer holds a private number
	switch r.URL.Path {
	case "/handleincoming/", "/handleincoming":
		if allow(w, r, http.MethodGet, http.MethodPost) {
			h.incoming(w, r)
		}
	case "/healthz":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			_, _ = io.WriteString(w, "ok\n")
		}
	default:
		http.Error(w, "Nothing is here. The answer URL for Plivo is /handleincoming/, the health check /healthz.", http.StatusNotFound)
	}
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, method := range methods {
		if r.Method == method {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	http.Error(w, "Use "+strings.Join(methods, " or ")+" here.", http.StatusMethodNotAllowed)
	return false
}

// maxBody is how many bytes of a form are read; Plivo sends about one KiB.
const maxBody = 64 << 10

// incoming answers a request to the answer URL: read the call that Plivo
// describes, decide what should happen with it, say so in XML.
func (h *Handler) incoming(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			h.refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the form is larger than %d KiB", maxBody>>10))
		} else {
			h.refuse(w, http.StatusBadRequest, errors.New("the query or form cannot be parsed; escape special characters as %XX"))
		}
		return
	}
	call, err := parseCall(r.Form)
	if err != nil {
		h.refuse(w, http.StatusBadRequest, err)
		return
	}
	answer := call.answer(h.config())

	w.Header().Set("Content-Type", "application/xml") // or text/xml, says https://www.plivo.com/docs/voice/xml/request
	_, _ = io.WriteString(w, answer.xml.String())
	h.log.LogAttrs(r.Context(), answer.level, answer.outcome, append(answer.attrs, slog.Duration("took", time.Since(start)))...)
}

// refuse answers what is no call, with a reason for the person who sent it.
func (h *Handler) refuse(w http.ResponseWriter, status int, reason error) {
	h.log.Warn("request refused", "status", status, "reason", reason)
	http.Error(w, "This is the answer URL of a Plivo application, but "+reason.Error()+".\n"+
		"A call looks like /handleincoming/?From=CALLER&To=PLIVO_NUMBER, each a phone number with country code.", status)
}

// A Call is what a request says of a call.
// Source of the names: https://www.plivo.com/docs/voice/xml/request
type Call struct {
	uuid     string
	from     Number // Number{} if withheld or not a phone number
	to       Number // the Plivo number that was called
	ended    bool   // Plivo's hangup_url defaults to the answer URL
	cause    string // hangup cause, once ended
	duration string // in seconds, once ended
}

func parseCall(form url.Values) (Call, error) {
	c := Call{
		uuid:     form.Get("CallUUID"),
		cause:    cmp.Or(form.Get("HangupCause"), form.Get("HangupCauseName")),
		duration: form.Get("Duration"),
	}
	c.ended = form.Get("Event") == "Hangup" || c.cause != ""
	for _, name := range []string{"From", "To"} {
		switch {
		case c.ended:
		case len(form[name]) == 0:
			return Call{}, fmt.Errorf("the parameter %s is missing", name)
		case len(form[name]) > 1:
			return Call{}, fmt.Errorf("the parameter %s is given more than once", name)
		}
	}
	var err error
	if c.to, err = ParseNumber(form.Get("To")); err != nil && !c.ended {
		return Call{}, fmt.Errorf("the parameter To is not a phone number: %w", err)
	}
	c.from, _ = ParseNumber(form.Get("From")) // anonymous and SIP callers are calls too
	return c, nil
}

// An Answer is what Plivo is told to do, and what the log says of it.
type Answer struct {
	xml     xml.ResponseElement
	outcome string
	level   slog.Level
	attrs   []slog.Attr
}

// answer decides what happens with a call. No answer has a Dial without a
// callerId (Plivo would then show the caller's own number) or with one other
// than the Plivo number called, nor any number but that and the one to dial.
func (c Call) answer(config *Config) Answer {
	peer, role, ok := config.Peer(c.from, c.to)
	a := Answer{attrs: []slog.Attr{
		slog.String("call", redact(c.uuid)),
		slog.Any("from", c.from),
		slog.Any("to", c.to),
	}}
	switch {
	case c.ended:
		a.outcome = "call ended"
		a.attrs = append(a.attrs, slog.String("cause", redact(c.cause)), slog.String("seconds", redact(c.duration)))
	case c.from == c.to:
		a.level = slog.LevelWarn
		a.reject("call rejected: the Plivo number calls itself")
	case !ok:
		a.reject("call rejected: the caller is in no pairing")
	case peer == c.to:
		a.level = slog.LevelWarn
		a.reject("call rejected: the number to dial is the Plivo number called; correct that pairing")
	default:
		a.outcome = "call connected"
		a.attrs = append(a.attrs, slog.Any("caller", role), slog.Any("dialled", peer))
		a.add(new(xml.DialElement).
			SetCallerID(c.to.Digits()).
			SetContents([]any{new(xml.NumberElement).SetContents(peer.Digits())}))
	}
	return a
}

// reject ends the call unanswered, for which Plivo does not bill.
func (a *Answer) reject(outcome string) {
	a.outcome = outcome
	a.add(new(xml.HangupElement).SetReason("rejected"))
}

func (a *Answer) add(element any) { a.xml.Contents = append(a.xml.Contents, element) }
