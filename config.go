package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// A Config is what config.json says. Loading checks it, so it can't be ambiguous, and it never changes: an
// edited file makes a new Config.
type Config struct {
	Port                 int    // TCP port to listen on, 1 to 65535
	UnknownCallerMessage string // spoken before hanging up; "" rejects the call unanswered
	ConnectingMessage    string // spoken before dialling; "" says nothing
	RingTimeout          int    // seconds, 1 to 86400; 0 leaves it to Plivo
	TimeLimit            int    // seconds, 1 to 86400; 0 leaves it to Plivo
	Pairings             int    // how many there are

	customerAgentMap Lookup            // for calls to each Plivo number that plivoNumbers does not list
	plivoNumbers     map[Number]Lookup // Plivo number → its own pairings
}

// A Lookup finds a pairing by its caller: it has each pairing twice, for the customer and for the agent.
type Lookup map[Number]Pairing

// A Pairing joins a customer and an agent, seen from the one who calls.
type Pairing struct {
	Peer Number // the other one, whose phone is to ring
	Role Role   // of the caller
	line int32  // in the file, for messages
}

// A Role is what a caller is in a pairing.
type Role uint8

const (
	Customer Role = iota
	Agent
)

func (r Role) String() string { return [...]string{"customer", "agent"}[r] }

// Serving returns the pairings for calls to plivoNumber, and whether they are its own.
func (c *Config) Serving(plivoNumber Number) (pairings Lookup, listed bool) {
	pairings, listed = c.plivoNumbers[plivoNumber]
	if !listed {
		pairings = c.customerAgentMap
	}
	return pairings, listed
}

// A ConfigFile is the file that a Config is loaded from, watched for edits.
type ConfigFile struct {
	path    string
	tried   [sha256.Size]byte // digest of what Load found last
	differs bool              // the last look found something else
}

// Edited looks at the file and reports whether to load it: if it differs from what was tried last, at this
// look and the previous one, as the first difference may be half of an edit. Only the content tells: cp -p
// and tar set the time stamp, and phone numbers are often equally long.
func (f *ConfigFile) Edited() bool {
	differed := f.differs
	digest, _ := f.read(io.Discard)
	f.differs = digest != f.tried
	return differed && f.differs
}

// Load reads and checks the file. The error lists what is wrong with it, one problem a line, and never shows
// a phone number.
func (f *ConfigFile) Load() (*Config, error) {
	defer debug.FreeOSMemory() // loading takes several times the size of the file
	var data bytes.Buffer
	digest, err := f.read(&data)
	f.tried, f.differs = digest, false
	if err != nil {
		return nil, fmt.Errorf("%w: put a file there that can be read, or name another with -config", err)
	}
	return ParseConfig(f.path, data.Bytes())
}

// read copies the file to w and returns a digest of it, or of the reason why it can't be read.
func (f *ConfigFile) read(w io.Writer) (digest [sha256.Size]byte, err error) {
	hash := sha256.New()
	if err = copyFile(io.MultiWriter(hash, w), f.path); err != nil {
		fmt.Fprint(hash, err)
	}
	return [sha256.Size]byte(hash.Sum(nil)), err
}

func copyFile(w io.Writer, path string) error {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // or a FIFO would wait for its writer
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return cmp.Or(err, fmt.Errorf("%s is not a regular file", path))
	}
	_, err = io.Copy(w, file)
	return err
}

// ParseConfig checks data, the content of the file called name. The error has one problem a line, in the
// order of the file: "config.json:LINE: what is wrong and what to do", or LINE:COLUMN if data is not JSON.
func ParseConfig(name string, data []byte) (*Config, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // Windows editors begin files with it
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		line := 1 + bytes.Count(data[:max(0, bytes.IndexRune(data, utf8.RuneError))], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: not UTF-8, perhaps UTF-16 or Latin-1: save it as UTF-8", name, line)
	}
	if !json.Valid(data) {
		return nil, syntaxError(name, data)
	}
	p := &parser{data: data, line: 1, settingLines: map[string]int{}, plivoLines: map[Number]int{}}
	p.config = &Config{Port: 5000, plivoNumbers: map[Number]Lookup{}}
	p.dec = json.NewDecoder(bytes.NewReader(data))
	p.dec.UseNumber()
	p.settings("", "app, call, customerAgentMap or plivoNumbers")
	if p.settingLines["customerAgentMap"]+p.settingLines["plivoNumbers"] == 0 && !p.unknownKey {
		p.problem(`no pairings: add "customerAgentMap": { "CUSTOMER": "AGENT" }, or {} for none yet`)
	}
	for _, lookup := range p.lookups {
		p.config.Pairings += len(lookup) / 2
		for caller, pairing := range lookup {
			if line := p.plivoLines[caller]; line > 0 {
				p.line = int(pairing.line)
				p.problem("the %s is also the Plivo number in line %d, which would dial itself: remove one",
					pairing.Role, line)
			}
		}
	}
	if len(p.problems) > 0 {
		return nil, p.err(name)
	}
	return p.config, nil
}

// A parser walks through data, which is valid JSON, fills in config and collects what is wrong.
type parser struct {
	dec          *json.Decoder
	data         []byte
	counted      int // bytes of data whose lines are counted
	line         int // where the last key or value began
	config       *Config
	settingLines map[string]int // by name, such as "app.port"
	plivoLines   map[Number]int // by Plivo number
	lookups      []Lookup       // all that config has
	unknownKey   bool           // there was one
	problems     []problem
}

type problem struct {
	line int
	text string
}

// settings reads the settings in a section, or those of the whole file if section is "". keys lists them.
func (p *parser) settings(section, keys string) {
	object := cmp.Or(section, "the file")
	p.object(object, func(key string) {
		name, line := strings.TrimPrefix(section+"."+key, "."), p.line
		switch first := p.settingLines[name]; {
		case first > 0:
			p.problem("%s is already in line %d: keep one of the two", name, first)
			p.value()
		case !strings.Contains(key, ".") && p.setting(name):
			p.settingLines[name] = line
		default:
			text := fmt.Sprintf("%.40q", key)
			if strings.ContainsFunc(key, unicode.IsNumber) {
				text = "(hidden, as it has digits)" // which may be those of a phone number
			}
			p.problem("unknown key %s in %s: remove it, or write %s", text, object, keys)
			p.unknownKey = true
			p.value()
		}
	})
}

// setting reads the value of the setting called name; false if there is no such setting.
func (p *parser) setting(name string) bool {
	c := p.config
	switch name {
	case "app":
		p.settings(name, "port")
	case "app.port":
		c.Port = p.integer(name, 65535)
	case "call":
		p.settings(name, "unknownCallerMessage, connectingMessage, ringTimeout or timeLimit")
	case "call.unknownCallerMessage":
		c.UnknownCallerMessage = p.message(name)
	case "call.connectingMessage":
		c.ConnectingMessage = p.message(name)
	case "call.ringTimeout":
		c.RingTimeout = p.integer(name, 86400)
	case "call.timeLimit":
		c.TimeLimit = p.integer(name, 86400)
	case "customerAgentMap":
		c.customerAgentMap = p.pairings(name)
	case "plivoNumbers":
		p.object(name, func(key string) {
			number := p.number("Plivo number", key)
			if line := p.plivoLines[number]; line > 0 {
				p.problem("the Plivo number is already in line %d: put all its pairings there", line)
			}
			if number != (Number{}) {
				p.plivoLines[number] = p.line
			}
			c.plivoNumbers[number] = p.pairings("the value of a Plivo number")
		})
	default:
		return false
	}
	return true
}

// pairings reads a map from customers to agents.
func (p *parser) pairings(name string) Lookup {
	rest := p.data[p.counted:]
	pairs := bytes.Count(rest[:bytes.IndexByte(rest, '}')+1], []byte(":"))
	lookup := make(Lookup, 2*pairs) // room for all at once, as a million would outgrow less often
	p.lookups = append(p.lookups, lookup)
	p.object(name, func(key string) {
		customer, agent := p.number("customer", key), p.number("agent", p.value())
		switch {
		case customer == Number{} || agent == Number{}: // a problem already
		case customer == agent:
			p.problem("the customer is paired with itself: write the agent's number after the customer's")
		default:
			p.add(lookup, customer, Pairing{agent, Customer, int32(p.line)})
			p.add(lookup, agent, Pairing{customer, Agent, int32(p.line)})
		}
	})
	return lookup
}

func (p *parser) add(lookup Lookup, caller Number, pairing Pairing) {
	first, taken := lookup[caller]
	if !taken {
		lookup[caller] = pairing
		return
	}
	advice := "change or remove one"
	if pairing.Role == Agent && first.Role == Agent {
		advice += ", or let plivoNumbers give each customer a Plivo number of its own"
	}
	p.problem("the %s is already the %s of the pairing in line %d, and only one phone can ring: %s",
		pairing.Role, first.Role, first.line, advice)
}

// number reads value as a phone number; Number{} if it is none.
func (p *parser) number(what string, value any) Number {
	text, ok := value.(string)
	if !ok {
		p.problem("the %s must be a phone number in quotes", what)
		return Number{}
	}
	number, err := ParseNumber(text)
	if err != nil {
		p.problem("the %s is no phone number: %v", what, err)
	}
	return number
}

func (p *parser) integer(name string, most int) int {
	number, _ := p.value().(json.Number)
	n, err := strconv.Atoi(number.String())
	if err != nil || n < 1 || n > most {
		p.problem("%s must be a whole number from 1 to %d, without quotes", name, most)
	}
	return n
}

func (p *parser) message(name string) string {
	const most = 10_000 // Plivo takes 100 kB of XML: https://www.plivo.com/docs/voice/xml/request
	text, ok := p.value().(string)
	if !ok || len(text) > most {
		p.problem("%s must be a text in quotes, of at most %d bytes", name, most)
	}
	return text
}

// object reads an object, calling member for each key to read its value.
func (p *parser) object(name string, member func(key string)) {
	if p.next() != '{' {
		p.problem("%s must be an object: write it as { … }", name)
		p.value()
		return
	}
	_, _ = p.dec.Token() // the opening brace; no Token or Decode fails, since data is valid
	for p.dec.More() {
		p.next()
		key, _ := p.dec.Token()
		member(key.(string))
	}
	_, _ = p.dec.Token()
}

func (p *parser) value() (v any) {
	p.next()
	_ = p.dec.Decode(&v)
	return v
}

// next moves line to where the next key or value begins, and returns its first byte.
func (p *parser) next() byte {
	start := int(p.dec.InputOffset())
	for strings.IndexByte(":, \t\r\n", p.data[start]) >= 0 {
		start++
	}
	p.line += bytes.Count(p.data[p.counted:start], []byte("\n"))
	p.counted = start
	return p.data[start]
}

func (p *parser) problem(format string, args ...any) {
	p.problems = append(p.problems, problem{p.line, fmt.Sprintf(format, args...)})
}

func (p *parser) err(name string) error {
	const most = 20
	slices.SortStableFunc(p.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for i, problem := range p.problems {
		if i == most {
			more := plural(len(p.problems)-most, "more problem")
			errs = append(errs, fmt.Errorf("%s: %s like these", name, more))
			break
		}
		errs = append(errs, fmt.Errorf("%s:%d: %s", name, problem.line, problem.text))
	}
	return errors.Join(errs...)
}

// syntaxError says where data stops being JSON, and how to mend the usual slips.
func syntaxError(name string, data []byte) error {
	at, what, advice := len(data), "the file ends too early", `write at least { "customerAgentMap": {} }`
	bad, _ := errors.AsType[*json.SyntaxError](json.Unmarshal(data, new(json.RawMessage)))
	if bad != nil && !strings.HasPrefix(bad.Error(), "unexpected end") {
		at = int(bad.Offset) - 1
	}
	before := bytes.TrimRight(data[:at], " \t\r\n")
	if bytes.HasSuffix(before, []byte(",")) && bytes.IndexAny(data[at:], "}]") == 0 {
		at = len(before) - 1
	}
	if char, size := utf8.DecodeRune(data[at:]); size > 0 {
		what = fmt.Sprintf("unexpected %#U", char)
		advice = "look for a missing or extra comma, quote or brace here or just before"
	}
	for _, slip := range []struct{ pattern, advice string }{
		{`^(<{7}|\|{7}|={7}|>{7})`, "a merge conflict: keep one of the two versions, and remove the marks"},
		{`^,\s*[}\]]`, "no comma may stand before a closing brace: remove it"},
		{`^(//|/\*|#)`, "JSON has no comments: remove this one"},
		{"^['`´‘’‚‛“”„‟«»]", `not the quote of JSON: write " around each key and text`},
		{`^[^\x00-\x7F]`, "only texts in quotes may have this: remove it, or write an ordinary space"},
		{`^[\t\r\n]`, `a text must end in its line, with ": look for a missing or curly quote`},
	} {
		if regexp.MustCompile(slip.pattern).Match(data[at:]) {
			advice = slip.advice
			break
		}
	}
	lines := bytes.Split(data[:at], []byte("\n"))
	column := 1 + utf8.RuneCount(lines[len(lines)-1])
	return fmt.Errorf("%s:%d:%d: %s: %s", name, len(lines), column, what, advice)
}

// A Number is a phone number in E.164 form, country code first. Only ParseNumber makes one, so it is well
// formed, unless it is Number{}, which stands for none. Whatever prints it shows its last four digits at
// most; Digits returns them all.
type Number struct {
	// The digits read as an integer, with all bits flipped: fmt prints an unexported field of a struct as it
	// is, without calling Format, and then shows nobody's number.
	flipped uint64
}

var separators = strings.NewReplacer(" ", "", "-", "", ".", "", "(", "", ")", "")

// ParseNumber reads a phone number that begins with its country code, written as people do, such as
// +1 (415) 666-7777. The error says what is wrong without showing the number.
func ParseNumber(text string) (Number, error) {
	digits := strings.TrimPrefix(separators.Replace(text), "+")
	value, err := strconv.ParseUint(digits, 10, 64)
	odd := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	switch {
	case odd >= 0 && digits[odd] == '+':
		return Number{}, errors.New("it has a + that is not its first character; remove that")
	case odd >= 0:
		char, _ := utf8.DecodeRuneInString(digits[odd:])
		return Number{}, fmt.Errorf("it has the character %#U; write digits only, or + in front", char)
	case strings.HasPrefix(digits, "0"):
		return Number{}, errors.New("it begins with 0; begin with the country code, without 0 or 00")
	case strings.Contains(strings.ReplaceAll(text, " ", ""), "(0"):
		return Number{}, errors.New("it has a 0 in parentheses; write it as it is dialled from abroad")
	case len(digits) < 7 || len(digits) > 15:
		count := plural(len(digits), "digit")
		return Number{}, fmt.Errorf("it has %s; write 7 to 15, country code included", count)
	}
	return Number{^value}, err
}

// Digits returns the whole number without +, as Plivo sends and takes it; "" for Number{}.
func (n Number) Digits() string {
	if n == (Number{}) {
		return ""
	}
	return strconv.FormatUint(^n.flipped, 10)
}

// String returns the number masked, such as *******7777.
func (n Number) String() string {
	if n == (Number{}) {
		return "none"
	}
	digits := n.Digits()
	return strings.Repeat("*", len(digits)-4) + digits[len(digits)-4:]
}

// Format prints the number masked for each verb of fmt, even %d.
func (n Number) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.String()) }

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
