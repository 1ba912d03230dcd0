package main

import (
	"cmp"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/plivo/plivo-go/v7"
	"github.com/plivo/plivo-go/v7/xml"
)

// A Handler answers Plivo's requests to the answer URL, /handleincoming/, and a load balancer's to /healthz.
type Handler struct {
	config    func() *Config // returns the one in force; a request asks once
	sign      Signer         // nil if requests need no signature
	publicURL string         // as ParsePublicURL returns it
	log       *slog.Logger
}

// ServeHTTP matches paths itself because http.ServeMux redirects unclean ones, and a redirected POST loses
// its form.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // an answer holds a private number
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	methods := []string{"GET", "POST"}
	switch r.URL.Path {
	case "/handleincoming/", "/handleincoming":
	case "/healthz":
		methods = []string{"GET", "HEAD"}
	default:
		h.refuse(w, r, http.StatusNotFound,
			errors.New("nothing is here: the answer URL is /handleincoming/, the health check /healthz"))
		return
	}
	switch {
	case !slices.Contains(methods, r.Method):
		w.Header().Set("Allow", strings.Join(methods, ", "))
		h.refuse(w, r, http.StatusMethodNotAllowed, fmt.Errorf("use %s here", strings.Join(methods, " or ")))
	case r.URL.Path == "/healthz":
		_, _ = io.WriteString(w, "ok\n")
	default:
		h.incoming(w, r)
	}
}

// incoming answers a request to the answer URL: it reads the form, makes sure that Plivo sent it, decides
// what happens with the call, and says so in XML.
func (h *Handler) incoming(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if status, err := readForm(r); err != nil {
		h.refuse(w, r, status, err)
		return
	}
	if err := h.checkSignature(r); err != nil {
		h.refuse(w, r, http.StatusForbidden, err)
		return
	}
	answer, err := Decide(r.Form, h.config())
	if err != nil {
		h.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, xml.ResponseElement{Contents: answer.elements}.String()+"\n")
	details := append(answer.details, slog.Duration("took", time.Since(start)))
	h.log.LogAttrs(r.Context(), answer.level, answer.outcome, details...)
}

const (
	maxBody       = 64 << 10 // bytes of a form; Plivo sends about 1 KiB
	maxParameters = 100      // Plivo sends some 30; plivo-go's signature takes time by the square of them
)

// readForm reads query and form into r.Form, or says why it can't and with which status to refuse.
func readForm(r *http.Request) (status int, err error) {
	err = r.ParseForm()
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge:
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the form is larger than %d KiB", maxBody>>10)
	case err != nil:
		return http.StatusBadRequest, errors.New("the query or form is cut off, or not escaped as %XX")
	case len(r.Form) > maxParameters:
		return http.StatusBadRequest, fmt.Errorf("there are more than %d parameters", maxParameters)
	}
	return 0, nil
}

// refuse logs why a request gets no XML, and tells whoever sent it.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	_ = r.ParseForm() // for the call's UUID, unless it has been read
	h.log.Warn("request refused", "status", status,
		"method", shown(methodShape, r.Method),
		"path", shown(pathShape, r.URL.Path),
		"call", shown(uuidShape, r.Form.Get("CallUUID")),
		"reason", reason)
	text := reason.Error()
	switch status {
	case http.StatusForbidden:
		text = "Only Plivo may ask here, and this request has no valid signature. The server's log says why."
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		text = "This is the answer URL of a Plivo application, but " + text + ".\nA call looks like " +
			"/handleincoming/?From=CALLER&To=PLIVO_NUMBER, each a phone number with country code."
	}
	http.Error(w, text, status)
}

// An Answer is what Plivo is told to do with a call, and what the log says of it.
type Answer struct {
	elements []any // of plivo-go/xml, inside Response
	level    slog.Level
	outcome  string
	details  []slog.Attr
}

// Decide returns the answer to the parameters of a request, which
// https://www.plivo.com/docs/voice/xml/request describes, or an error if they describe no call.
//
// No answer has a Dial without callerId and callerName, since Plivo would show the caller's own number and
// name, or with another number there than the Plivo number called. Nor does it hold any number but that and
// the one to dial.
func Decide(form url.Values, config *Config) (Answer, error) {
	from, badFrom := ParseNumber(form.Get("From"))
	to, badTo := ParseNumber(form.Get("To"))
	cause := cmp.Or(form.Get("HangupCause"), form.Get("HangupCauseName"))
	pairings, listed := config.Serving(to)
	pairing, paired := pairings[from]

	const info, warn = slog.LevelInfo, slog.LevelWarn
	call := []slog.Attr{
		slog.String("call", shown(uuidShape, form.Get("CallUUID"))),
		slog.String("from", from.String()),
		slog.String("to", to.String()),
	}
	reject := func(level slog.Level, why string) (Answer, error) {
		return Answer{hangup(config), level, "call rejected: " + why, call}, nil
	}
	switch {
	case form.Get("Event") == "Hangup" || cause != "": // Plivo's hangup_url defaults to the answer URL
		return Answer{nil, info, "call ended", append(call,
			slog.String("cause", shown(causeShape, cause)),
			slog.String("seconds", shown(secondsShape, form.Get("Duration"))))}, nil
	case !form.Has("From"):
		return Answer{}, errors.New("the parameter From is missing")
	case !form.Has("To"):
		return Answer{}, errors.New("the parameter To is missing")
	case len(form["From"]) > 1 || len(form["To"]) > 1:
		return Answer{}, errors.New("the parameter From or To is given more than once")
	case badTo != nil:
		return Answer{}, errors.New("the parameter To is not a phone number")
	case badFrom != nil:
		return reject(info, "the caller's number is withheld or no phone number")
	case from == to:
		return reject(warn, "the caller's number is the Plivo number called")
	case !paired && listed:
		return reject(info, "the caller is in no pairing of this Plivo number, which plivoNumbers lists")
	case !paired:
		return reject(info, "the caller is not in customerAgentMap; plivoNumbers does not list this number")
	case pairing.Peer == to:
		return reject(warn, "the number to dial is the Plivo number called; correct that pairing")
	}
	return Answer{dial(config, pairing.Peer, to), info, "dialling", append(call,
		slog.String("caller", pairing.Caller()),
		slog.String("dialled", pairing.Peer.String()))}, nil
}

func dial(config *Config, peer, called Number) []any {
	dial := new(xml.DialElement).
		SetCallerID(called.Digits()).
		SetCallerName(called.Digits()).
		SetContents([]any{new(xml.NumberElement).SetContents(peer.Digits())})
	if config.RingTimeout > 0 {
		dial = dial.SetTimeout(config.RingTimeout)
	}
	if config.TimeLimit > 0 {
		dial = dial.SetTimeLimit(config.TimeLimit)
	}
	if config.ConnectingMessage == "" {
		return []any{dial}
	}
	return []any{new(xml.SpeakElement).AddSpeak(config.ConnectingMessage), dial}
}

// hangup ends the call unanswered, for which Plivo does not bill, unless there is something to say first.
func hangup(config *Config) []any {
	if config.UnknownCallerMessage == "" {
		return []any{new(xml.HangupElement).SetReason("rejected")}
	}
	return []any{new(xml.SpeakElement).AddSpeak(config.UnknownCallerMessage), new(xml.HangupElement)}
}

// A Signer computes signatures of version 3: https://www.plivo.com/docs/voice/concepts/signature-validation.
// It is a function because no print of a struct shows what that holds, here the auth token.
type Signer func(uri, method, nonce string, params map[string]string) string

func NewSigner(token string) Signer {
	return func(uri, method, nonce string, params map[string]string) string {
		return plivo.ComputeSignatureV3(token, uri, method, nonce, params)
	}
}

// checkSignature returns an error unless Plivo signed r, whose form is read, or no signature is needed.
// Version 2 does not count: it does not cover the parameters.
func (h *Handler) checkSignature(r *http.Request) error {
	if h.sign == nil {
		return nil
	}
	given := slices.Concat(r.Header["X-Plivo-Signature-V3"], r.Header["X-Plivo-Signature-Ma-V3"])
	nonce := r.Header.Get("X-Plivo-Signature-V3-Nonce")
	if len(given) == 0 || nonce == "" {
		return errors.New("the header X-Plivo-Signature-V3 or X-Plivo-Signature-V3-Nonce is missing")
	}
	called, err := h.calledURL(r)
	if err != nil {
		return err
	}
	posted := map[string]string{}
	for name, values := range r.Form {
		if len(values) > 1 {
			return errors.New("a parameter is given twice, and the signature covers only the first")
		}
		if r.PostForm.Has(name) {
			posted[name] = values[0]
		}
	}
	// plivo-go parses the URL again. Encoding the query anew leaves nothing in it that could then count as
	// something else, such as a fragment.
	want := h.sign(called+"?"+r.URL.Query().Encode(), r.Method, nonce, posted)
	for signature := range strings.SplitSeq(strings.Join(given, ","), ",") {
		if hmac.Equal([]byte(strings.TrimSpace(signature)), []byte(want)) {
			return nil
		}
	}
	return fmt.Errorf("the signature does not fit %s; compare that with the answer URL in Plivo's console: "+
		"if they differ, set PUBLIC_URL to what the console has before /handleincoming/; "+
		"if not, PLIVO_AUTH_TOKEN is another account's, or the request is forged", shown(urlShape, called))
}

// calledURL returns the URL, without its query, that Plivo called: by PUBLIC_URL, else by what a proxy or the
// connection says. Anyone can send these headers, so only a bare host may be there, not also a path or query.
func (h *Handler) calledURL(r *http.Request) (string, error) {
	if h.publicURL != "" {
		return h.publicURL + r.URL.EscapedPath(), nil
	}
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",") // the first of a chain of proxies
	host, _, _ := strings.Cut(cmp.Or(r.Header.Get("X-Forwarded-Host"), r.Host), ",")
	origin := "http://" + host
	if strings.EqualFold(proto, "https") {
		origin = "https://" + host
	}
	if u, err := url.Parse(origin); err != nil || host == "" || u.Host != host {
		return "", errors.New("the Host or X-Forwarded-Host header is malformed")
	}
	return origin + r.URL.EscapedPath(), nil
}

// ParsePublicURL reads what comes before /handleincoming/ in the URL that Plivo calls, such as
// https://example.com or https://example.com/prefix; "" if that is not known.
func ParsePublicURL(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	defaultPorts := map[string]string{"http": ":80", "https": ":443"} // which Plivo leaves out
	if err != nil || u.Host == "" || u.User != nil || defaultPorts[u.Scheme] == "" ||
		strings.ContainsAny(text, "?#") || strings.Contains(u.Path, "handleincoming") {
		return "", errors.New("PUBLIC_URL must be this server's URL without /handleincoming/, " +
			"such as https://example.com: correct or unset it")
	}
	host := strings.TrimSuffix(u.Host, defaultPorts[u.Scheme])
	return u.Scheme + "://" + host + strings.TrimRight(u.EscapedPath(), "/"), nil
}

// The shapes of what comes from outside and may be logged. A path has at most as many digits as a masked
// number shows.
var (
	uuidShape    = regexp.MustCompile(`^[[:xdigit:]]{8}(-[[:xdigit:]]{4}){3}-[[:xdigit:]]{12}$`)
	causeShape   = regexp.MustCompile(`^[A-Za-z _()/-]+$`)
	secondsShape = regexp.MustCompile(`^[0-9]{1,5}$`)
	methodShape  = regexp.MustCompile(`^[A-Z]+$`)
	pathShape    = regexp.MustCompile(`^/([A-Za-z/._~-]*[0-9]){0,4}[A-Za-z/._~-]*$`)
	urlShape     = regexp.MustCompile(`^https?://` +
		`([\w-]+\.)*([\w-]*[A-Za-z][\w-]*|[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[[:xdigit:]:.]+\])(:[0-9]{1,5})?` +
		`(/[\w/.~%-]*)?$`)
)

func shown(shape *regexp.Regexp, text string) string {
	switch {
	case text == "":
		return "none"
	case len(text) > 200 || !shape.MatchString(text):
		return "(hidden)"
	}
	return text
}
