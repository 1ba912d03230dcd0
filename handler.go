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
	"sync"
	"sync/atomic"
	"time"

	"github.com/plivo/plivo-go/v7"
	"github.com/plivo/plivo-go/v7/xml"
)

// A Handler answers Plivo's requests to /handleincoming/ and …/accept, and a load balancer's to /healthz.
type Handler struct {
	config    atomic.Pointer[Config] // the one in force; a request loads it once
	token     string                 // Plivo's auth token; "" if requests need no signature
	publicURL string                 // the answer URL up to /handleincoming/; "" if not known
	log       *slog.Logger
}

// NewHandler checks PLIVO_AUTH_TOKEN and PUBLIC_URL, each of which may be "". PUBLIC_URL is what comes before
// /handleincoming/ in the URL that Plivo calls. A Config must be stored in config before it serves.
func NewHandler(token, publicURL string, log *slog.Logger) (*Handler, error) {
	token, publicURL = strings.TrimSpace(token), strings.TrimSpace(publicURL)
	base := ""
	parts := publicShape.FindStringSubmatch(publicURL) // scheme, host and path
	if parts != nil && !strings.Contains(parts[3], "handleincoming") {
		base = joinURL(strings.ToLower(parts[1]), parts[2], strings.TrimRight(parts[3], "/"))
	}
	switch {
	case base == "" && publicURL != "":
		return nil, errors.New("PUBLIC_URL must be this server's URL without /handleincoming/, such as " +
			"https://example.com: correct or unset it")
	case token == "" && publicURL != "":
		return nil, errors.New("PUBLIC_URL is set, but PLIVO_AUTH_TOKEN is not, so anyone could ask who is " +
			"paired with whom: set both (the token is in Plivo's console), or neither")
	case token != "" && !tokenShape.MatchString(token):
		return nil, errors.New("PLIVO_AUTH_TOKEN is not an auth token (those have 40 characters): copy it " +
			"from Plivo's console, without quotes, comments or anything else around it")
	}
	return &Handler{token: token, publicURL: base, log: log}, nil
}

// ServeHTTP matches paths itself: http.ServeMux redirects unclean ones, and a redirected POST loses its form.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // an answer holds a private number
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	path, method := r.URL.EscapedPath(), r.Method
	isAnswerURL := path == "/handleincoming/" || path == "/handleincoming"
	switch {
	case isAnswerURL && (method == "GET" || method == "POST"):
		h.incoming(w, r)
	case path == "/handleincoming/accept" && (method == "GET" || method == "POST"):
		h.accept(w, r)
	case isAnswerURL || path == "/handleincoming/accept":
		w.Header().Set("Allow", "GET, POST")
		h.refuse(w, r, http.StatusMethodNotAllowed, errors.New("use GET or POST here"))
	case path == "/healthz" && (method == "GET" || method == "HEAD"):
		_, _ = io.WriteString(w, "ok\n")
	default:
		h.refuse(w, r, http.StatusNotFound, errors.New("nothing is here: the answer URL is /handleincoming/ "+
			"(GET or POST), the health check /healthz (GET)"))
	}
}

// incoming answers a request to the answer URL: it reads the form, checks the signature, decides what
// happens with the call, and says so in XML.
func (h *Handler) incoming(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if status, err := readForm(r); err != nil {
		h.refuse(w, r, status, err)
		return
	}
	config := h.config.Load()
	calledURL := sync.OnceValue(func() string { return h.calledURL(r) }) // slow, and most calls need none
	if err := h.checkSignature(r, calledURL); err != nil {
		h.refuse(w, r, http.StatusForbidden, err)
		return
	}
	from, _ := ParseNumber("+" + strings.TrimPrefix(r.Form.Get("From"), "+")) // Plivo sends no +
	to, _ := ParseNumber("+" + strings.TrimPrefix(r.Form.Get("To"), "+"))
	answer, err := decide(r.Form, from, to, config, calledURL)
	if err != nil {
		h.refuse(w, r, http.StatusBadRequest, err)
		return
	}
	writeXML(w, answer.elements)
	who := []any{"call", callUUID(r), "from", from.String(), "to", to.String()}
	h.log.Log(r.Context(), answer.level, answer.outcome,
		slices.Concat(who, answer.details, []any{"took", time.Since(start)})...)
}

// accept answers with the message for whoever has picked up the other phone. It needs no signature: whatever
// the parameters, the answer is the same for everyone, and holds no number.
func (h *Handler) accept(w http.ResponseWriter, r *http.Request) {
	h.log.Info("accept message asked for", "call", callUUID(r))
	config := h.config.Load()
	writeXML(w, speak(config, config.AcceptMessage))
}

// callUUID parses the form if nobody has. r.FormValue would parse a multipart one, at ten times the cost.
func callUUID(r *http.Request) string {
	_ = r.ParseForm()
	return shown(uuidShape, r.Form.Get("CallUUID"))
}

func writeXML(w http.ResponseWriter, elements []any) {
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, xml.ResponseElement{Contents: elements}.String()+"\n")
}

const (
	maxBody       = 64 << 10 // bytes of a form; Plivo sends about 1 KiB
	maxParameters = 100      // Plivo sends some 30; plivo-go's signature takes time quadratic in them
)

// readForm reads the query and the body into r.Form. After an error, status is what to refuse r with.
func readForm(r *http.Request) (status int, err error) {
	err = r.ParseForm()
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the form is larger than %d KiB", maxBody>>10)
	case err != nil || len(r.Form) > maxParameters:
		return http.StatusBadRequest, fmt.Errorf("the query or form is incomplete, wrongly escaped "+
			"(%%XX), or has more than %d parameters", maxParameters)
	}
	return 0, nil
}

// refuse logs why a request gets no XML, and tells the sender.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	h.log.Warn("request refused", "status", status,
		"method", shown(wordsShape, r.Method),
		"path", shown(pathShape, r.URL.EscapedPath()),
		"call", callUUID(r),
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
	elements []any      // of plivo-go/xml, inside Response
	level    slog.Level // Info unless set
	outcome  string
	details  []any // names and values in turn
}

// decide returns the answer to a request, or an error if that is not a call as described on
// https://www.plivo.com/docs/voice/xml/request. from is who calls, to is the number called. Plivo also
// reports here that a call has ended, since its hangup_url defaults to the answer URL.
func decide(form url.Values, from, to Number, config *Config, calledURL func() string) (Answer, error) {
	event, causeName, cause := form.Get("Event"), form.Get("HangupCauseName"), form.Get("HangupCause")
	switch {
	case event != "Hangup" && reportsDial(form): // the report of a hangup may have Dial parameters, too
		return dialEnded(form, config), nil
	case event == "Hangup" || (event == "" && causeName+cause != ""): // a report may lack Event
		return Answer{outcome: "call ended", details: []any{
			"cause", shown(wordsShape, causeName, cause), // the name tells more, if it is readable
			"seconds", shown(secondsShape, form.Get("Duration")),
		}}, nil
	case len(form["From"]) != 1 || len(form["To"]) != 1:
		return Answer{}, errors.New("the parameters From and To are needed, each once")
	case form.Get("Direction") == "outbound":
		return reject(config, "the business placed this call, so To is the person called"), nil
	case to == Number{}:
		return Answer{}, errors.New("the parameter To is not a phone number")
	case (config.NoAnswerMessage != "" || config.AcceptMessage != "") && calledURL() == "":
		return Answer{}, errMalformedHost
	case from == Number{} && withheldShape.MatchString(form.Get("From")):
		return reject(config, "the caller's number is withheld"), nil
	case from == Number{}:
		return reject(config, "the caller's number has no country code, or is not a phone number"), nil
	}
	return connect(from, to, config, calledURL), nil
}

// connect rings the other phone of the caller's pairing, or turns away a caller who is in none.
func connect(from, to Number, config *Config, calledURL func() string) Answer {
	pairings, listed := config.Serving(to)
	pairing, paired := pairings[from]
	switch {
	case from == to || (paired && pairing.Peer == to):
		answer := reject(config, "the caller or the phone to ring is the Plivo number called; check pairings")
		answer.level = slog.LevelWarn
		return answer
	case !paired && listed:
		return reject(config, "the caller is in no pairing of this Plivo number, which plivoNumbers lists")
	case !paired:
		return reject(config, "the caller is not in customerAgentMap, nor the Plivo number in plivoNumbers")
	}
	dial := xml.DialElement{ // without callerId and callerName, Plivo shows the caller's own number and name
		CallerID:   new(to.Digits()),
		CallerName: new(to.Digits()),
		Timeout:    config.RingTimeout,
		TimeLimit:  config.TimeLimit,
		Contents:   []any{xml.NumberElement{Contents: pairing.Peer.Digits()}},
	}
	if config.NoAnswerMessage != "" {
		dial.Action = new(calledURL()) // requested when the Dial ends
	}
	if config.AcceptMessage != "" { // requested when the other phone is picked up
		dial.ConfirmSound = new(strings.TrimSuffix(calledURL(), "/") + "/accept")
		dial.ConfirmKey, dial.ConfirmTimeout = new("1"), new("20") // seconds; by default 120
	}
	return Answer{
		elements: append(speak(config, config.ConnectingMessage), dial),
		outcome:  "dialling",
		details:  []any{"caller", pairing.Caller(), "dialled", pairing.Peer.String()},
	}
}

// reject turns a caller away: unanswered, for which Plivo does not bill, or with call.unknownCallerMessage.
func reject(config *Config, why string) Answer {
	elements := []any{xml.HangupElement{Reason: new("rejected")}}
	if config.UnknownCallerMessage != "" {
		elements = append(speak(config, config.UnknownCallerMessage), xml.HangupElement{})
	}
	return Answer{elements: elements, outcome: "call rejected: " + why}
}

// speak says a message; nothing if it is "".
func speak(config *Config, message string) []any {
	if message == "" {
		return nil
	}
	return []any{xml.SpeakElement{Contents: []any{message}, Language: config.Language}}
}

// reportsDial reports whether a request is about a Dial of an earlier answer, and not about a new call.
func reportsDial(form url.Values) bool {
	names := []string{"DialStatus", "DialRingStatus", "DialHangupCause", "DialALegUUID", "DialBLegUUID"}
	return slices.ContainsFunc(names, form.Has) || strings.HasPrefix(form.Get("Event"), "Dial")
}

// dialEnded tells the caller that nobody answered, unless the two have talked or the caller gave up.
func dialEnded(form url.Values, config *Config) Answer {
	status := form.Get("DialStatus")
	answer := Answer{outcome: "dial ended", details: []any{
		"status", shown(wordsShape, status), "cause", shown(wordsShape, form.Get("DialHangupCause"))}}
	// A report without a status has the other phone's UUID only if that phone was picked up.
	talked := status == "completed" || (status == "" && form.Get("DialBLegUUID") != "")
	if !talked && status != "cancel" {
		answer.elements = speak(config, config.NoAnswerMessage)
	}
	return answer
}

// checkSignature returns an error unless Plivo signed the request to calledURL with the token, if any.
// The form must be parsed. A version 2 signature does not count, since it does not cover the parameters.
func (h *Handler) checkSignature(r *http.Request, calledURL func() string) error {
	if h.token == "" {
		return nil
	}
	// Ma stands for main account: that signature is made with its token.
	given := slices.Concat(r.Header["X-Plivo-Signature-V3"], r.Header["X-Plivo-Signature-Ma-V3"])
	nonce := r.Header.Get("X-Plivo-Signature-V3-Nonce")
	if len(given) == 0 || nonce == "" {
		return errors.New("the header X-Plivo-Signature-V3 or X-Plivo-Signature-V3-Nonce is missing")
	}
	if calledURL() == "" {
		return errMalformedHost
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
	// Encode the query anew: plivo-go takes a raw # in it for a fragment. Without a query, it drops the ?.
	// plivo.ValidateSignatureV3 would not compare in constant time.
	uri := calledURL() + "?" + r.URL.Query().Encode()
	want := plivo.ComputeSignatureV3(h.token, uri, r.Method, nonce, posted)
	for signature := range strings.SplitSeq(strings.Join(given, ","), ",") {
		if hmac.Equal([]byte(strings.TrimSpace(signature)), []byte(want)) {
			return nil
		}
	}
	return fmt.Errorf("the signature does not match %s; compare it with the answer URL in Plivo's "+
		"console: if they differ, set PUBLIC_URL to what the console has before /handleincoming/; "+
		"if not, PLIVO_AUTH_TOKEN is another account's, or the request is forged", calledURL())
}

// calledURL returns the URL that Plivo called, without its query: PUBLIC_URL if that is set, else what
// X-Forwarded-* or Host say. These can be forged: for anything but a plain host, it returns "".
func (h *Handler) calledURL(r *http.Request) string {
	if h.publicURL != "" {
		return h.publicURL + r.URL.EscapedPath()
	}
	scheme := "http"
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",") // each proxy appends its own
	if strings.EqualFold(strings.TrimSpace(proto), "https") {
		scheme = "https"
	}
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ",")
	return joinURL(scheme, cmp.Or(strings.TrimSpace(forwarded), r.Host), r.URL.EscapedPath())
}

var errMalformedHost = errors.New("the header Host or X-Forwarded-Host is malformed")

// joinURL joins a URL, without the scheme's default port, as Plivo does; "" if host is malformed.
func joinURL(scheme, host, path string) string {
	defaultPort := map[string]string{"http": ":80", "https": ":443"}[scheme]
	base := scheme + "://" + strings.TrimSuffix(host, defaultPort)
	if _, err := url.Parse(base); err != nil || len(host) > 255 || !hostShape.MatchString(host) {
		return "" // plivo-go would panic on a URL that does not parse, such as http://[0]
	}
	return base + path
}

// The shapes of what comes from outside, most of it for the log. A path has at most four digits, since more
// might be a phone number.
var (
	tokenShape    = regexp.MustCompile(`^[A-Za-z0-9+/=_-]{20,}$`)
	uuidShape     = regexp.MustCompile(`^[[:xdigit:]]{8}(-[[:xdigit:]]{4}){3}-[[:xdigit:]]{12}$`)
	withheldShape = regexp.MustCompile(`(?i)anonymous|^[^0-9@:]*$`) // in place of the caller's number
	wordsShape    = regexp.MustCompile(`^[A-Za-z _()/-]+$`)
	secondsShape  = regexp.MustCompile(`^[0-9]{1,5}$`)
	pathShape     = regexp.MustCompile(`^/([A-Za-z/._~%-]*[0-9]){0,4}[A-Za-z/._~%-]*$`)
	publicShape   = regexp.MustCompile(`^([Hh][Tt][Tt][Pp][Ss]?)://([^/]+)(/[A-Za-z0-9/._~-]*)?$`)
	hostShape     = regexp.MustCompile(`^([\w-]+\.)*` + // an IP, or a name with a letter; perhaps a port
		`([\w-]*[A-Za-z][\w-]*|[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[[:xdigit:]:.]+\])(:[0-9]{1,5})?$`)
)

// shown returns the first of the texts that has the shape, for the log: any other might be a phone number.
func shown(shape *regexp.Regexp, texts ...string) string {
	result := "none"
	for _, text := range texts {
		if len(text) <= 200 && shape.MatchString(text) {
			return text
		}
		if text != "" {
			result = "(hidden)"
		}
	}
	return result
}
