package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Config is what config.json says. It has been checked, so it can't be ambiguous, and it never changes.
type Config struct {
	Port                 int    // TCP port to listen on, 1 to 65535
	UnknownCallerMessage string // spoken before hanging up; "" rejects the call unanswered
	ConnectingMessage    string // spoken before dialling; "" says nothing
	NoAnswerMessage      string // spoken if the other phone is not picked up; "" ends the call
	Language             string // of the messages, such as de-DE; "" leaves it to Plivo
	RingTimeout          *int   // seconds, 1 to 86400; nil leaves it to Plivo
	TimeLimit            *int   // seconds, 1 to 86400; nil leaves it to Plivo
	Pairings             int    // how many there are

	customerAgentMap Lookup            // for calls to each Plivo number that plivoNumbers does not list
	plivoNumbers     map[Number]Lookup // Plivo number → its own pairings
}

// A Lookup finds a pairing by its caller: it has each pairing twice, for the customer and for the agent.
type Lookup map[Number]Pairing

// A Pairing joins a customer and an agent, seen from the one who calls.
type Pairing struct {
	Peer    Number // the other one, whose phone will ring
	byAgent bool   // the caller is the agent
	line    int32  // in the file, for messages
}

// Caller says what the caller is in the pairing: customer or agent.
func (p Pairing) Caller() string {
	if p.byAgent {
		return "agent"
	}
	return "customer"
}

// Serving returns the pairings for calls to plivoNumber, and whether they are its own.
func (c *Config) Serving(plivoNumber Number) (pairings Lookup, listed bool) {
	if pairings, listed = c.plivoNumbers[plivoNumber]; listed {
		return pairings, true
	}
	return c.customerAgentMap, false
}

// A ConfigFile is the file that a Config is loaded from.
type ConfigFile struct {
	path     string
	tried    string // what Load found when it last read the file
	differed bool   // the previous look differed from tried
}

// Loaded is the result of loading the file: a Config, or the reason why there is none.
type Loaded struct {
	config *Config
	err    error
}

// Watch loads the file after each edit and each SIGHUP, and sends the result, until ctx ends.
func (f *ConfigFile) Watch(ctx context.Context, hangups <-chan os.Signal, loads chan<- Loaded) {
	ticks := time.Tick(500 * time.Millisecond) // polling works with every editor and every file system
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		case <-ticks:
			if !f.Edited() {
				continue
			}
		}
		config, err := f.Load()
		loads <- Loaded{config, err}
	}
}

// Edited reads the file and reports whether to load it: that is, if it differed from what Load read last at
// two looks in a row. That gives an editor half a second to finish writing; a slower write is loaded
// unfinished, reported as broken, and loaded again. Contents are compared: cp -p and tar preserve the time
// stamp, and a changed number leaves the size as it was.
func (f *ConfigFile) Edited() bool {
	found, _ := f.read(io.Discard)
	differed := f.differed
	f.differed = found != f.tried
	return differed && f.differed
}

// Load reads and checks the file. The error has one problem a line, and never shows a phone number.
func (f *ConfigFile) Load() (*Config, error) {
	var data bytes.Buffer
	found, err := f.read(&data)
	f.tried, f.differed = found, false
	if err != nil {
		return nil, fmt.Errorf("%w: put a file there that the server's user can read, "+
			"or name another with -config", err)
	}
	return ParseConfig(f.path, data.Bytes())
}

// read copies the file to w. What it found is a hash of the content and the error, so that a file that
// vanishes or becomes unreadable counts as edited, once.
func (f *ConfigFile) read(w io.Writer) (found string, err error) {
	file, err := os.OpenFile(f.path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // or a FIFO would wait for a writer
	if err != nil {
		return err.Error(), err
	}
	defer file.Close()
	const limit = 64 << 20 // bytes; a million pairings take 33 MB
	hash := sha256.New()
	info, err := file.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", f.path)
	case info.Size() > limit:
		err = fmt.Errorf("%s is larger than %d MB, too large for pairings", f.path, limit>>20)
	default:
		_, err = io.Copy(io.MultiWriter(hash, w), io.LimitReader(file, limit)) // as it may have grown since
	}
	return fmt.Sprint(hash.Sum(nil), err), err
}

// ParseConfig checks data, the content of the file called name. The error has one problem per line, such as
// "config.json:LINE: what is wrong and what to do", or LINE:COLUMN if data is not JSON.
func ParseConfig(name string, data []byte) (*Config, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF")) // Windows editors begin files with it
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("%s:%d: not plain text in UTF-8: save it again as UTF-8", name, line)
		}
	}
	// Decoding into nothing checks the syntax only. The types are left to the parser.
	if bad, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(data, new(struct{}))); ok {
		at, text := syntaxProblem(data, bad)
		line := 1 + bytes.Count(data[:at], []byte("\n"))
		column := 1 + utf8.RuneCount(data[bytes.LastIndexByte(data[:at], '\n')+1:at])
		return nil, fmt.Errorf("%s:%d:%d: %s", name, line, column, text)
	}
	// A key takes far more memory than its bytes in the file, so the keys are limited, by counting colons.
	// Plivo numbers and pairings take at least 13 bytes per colon, as in "1234567":{}, with its comma; the
	// 50,000 are for colons in texts.
	if bytes.Count(data, []byte(":")) > len(data)/13+50_000 {
		return nil, fmt.Errorf("%s: too many keys to be pairings: put the file with the pairings there", name)
	}
	p := &parser{data: data, json: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.json.UseNumber()
	config := p.config(member{line: 1, value: p.value()})
	if p.found == 0 {
		return config, nil
	}
	slices.SortStableFunc(p.problems, func(a, b problem) int { return int(a.line - b.line) })
	var problems []error
	for _, problem := range p.problems {
		problems = append(problems, fmt.Errorf("%s:%d: %s", name, problem.line, problem.text))
	}
	if more := p.found - len(problems); more > 0 {
		problems = append(problems, fmt.Errorf("%s: %s", name, plural(more, "more problem")))
	}
	return nil, errors.Join(problems...)
}

// A parser makes a Config from data, which is valid JSON, and collects what is wrong.
type parser struct {
	data       []byte
	json       *json.Decoder    // of data
	counted    int              // bytes of data whose lines are counted
	line       int32            // of the last key
	plivoLines map[Number]int32 // the Plivo numbers that the file lists, and their lines
	problems   []problem        // the first 20 found
	found      int              // problems in all
}

type problem struct {
	line int32
	text string
}

func (p *parser) problem(line int32, format string, args ...any) {
	if p.found++; p.found <= 20 {
		p.problems = append(p.problems, problem{line, fmt.Sprintf(format, args...)})
	}
}

var sections = []string{"app", "call", "customerAgentMap", "plivoNumbers"}

func (p *parser) config(root member) *Config {
	file := p.section(root, "the file", `{ "customerAgentMap": { "CUSTOMER": "AGENT" } }`, sections...)
	app := p.section(file["app"], "app", `{ "port": 5000 }`, "port")
	call := p.section(file["call"], "call", `{ "ringTimeout": 30 }`, "unknownCallerMessage",
		"connectingMessage", "noAnswerMessage", "language", "ringTimeout", "timeLimit")
	config := &Config{
		Port:                 *p.integer(app["port"], "app.port", 65535, new(5000)),
		UnknownCallerMessage: p.message(call["unknownCallerMessage"], "call.unknownCallerMessage"),
		ConnectingMessage:    p.message(call["connectingMessage"], "call.connectingMessage"),
		NoAnswerMessage:      p.message(call["noAnswerMessage"], "call.noAnswerMessage"),
		Language:             p.language(call["language"]),
		RingTimeout:          p.integer(call["ringTimeout"], "call.ringTimeout", 86400, nil),
		TimeLimit:            p.integer(call["timeLimit"], "call.timeLimit", 86400, nil),
		plivoNumbers:         map[Number]Lookup{},
	}
	p.plivoLines = map[Number]int32{}
	maps := p.object(file["plivoNumbers"], "plivoNumbers", `{ "PLIVO NUMBER": { "CUSTOMER": "AGENT" } }`, nil)
	for _, entry := range maps { // all keys first, since no customer or agent may be one of them
		number := p.number(entry.line, "Plivo number", entry.key)
		if first, again := p.plivoLines[number]; again && number != (Number{}) {
			p.problem(entry.line, "the Plivo number is already on line %d: put all its pairings there", first)
		}
		p.plivoLines[number] = entry.line
	}
	config.customerAgentMap = p.pairings(file["customerAgentMap"], "customerAgentMap")
	config.Pairings = len(config.customerAgentMap) / 2
	for _, entry := range maps {
		number, _ := ParseNumber(entry.key) // if it is none, that has been reported
		config.plivoNumbers[number] = p.pairings(entry, "a Plivo number")
		config.Pairings += len(config.plivoNumbers[number]) / 2
	}
	if p.found == 0 && !file["customerAgentMap"].given() && !file["plivoNumbers"].given() {
		p.problem(1, `no pairings: add "customerAgentMap": { "CUSTOMER": "AGENT" }, or {} for none yet`)
	}
	return config
}

// pairings reads a map from customers to agents.
func (p *parser) pairings(m member, name string) Lookup {
	lookup, told := Lookup{}, false
	for _, pair := range p.object(m, name, `{ "CUSTOMER": "AGENT" }`, nil) {
		if !strings.ContainsFunc(pair.key, unicode.IsDigit) {
			if !told { // once: { "customer": …, "agent": … } has two such keys
				p.problem(pair.line, `a key is not a phone number: write pairings as { "CUSTOMER": "AGENT" }`)
				told = true
			}
			continue
		}
		customer, agent := p.number(pair.line, "customer", pair.key), p.number(pair.line, "agent", pair.value)
		first, again := lookup[customer]
		switch {
		case customer == Number{} || agent == Number{}: // already reported
		case customer == agent:
			p.problem(pair.line, "the customer is paired with itself: write the agent's number after it")
		case again && first.Peer == agent:
			p.problem(pair.line, "the same pairing is already on line %d: remove one of the two", first.line)
		default:
			p.add(lookup, customer, Pairing{Peer: agent, line: pair.line})
			p.add(lookup, agent, Pairing{Peer: customer, line: pair.line, byAgent: true})
		}
	}
	return lookup
}

func (p *parser) add(lookup Lookup, caller Number, pairing Pairing) {
	first, taken := lookup[caller]
	_, isPlivoNumber := p.plivoLines[caller]
	switch {
	case isPlivoNumber:
		p.problem(pairing.line, "the %s is also a Plivo number, and can't be a person's phone: correct one",
			pairing.Caller())
	case taken:
		p.problem(pairing.line, "the %s is already the %s on line %d, and only one phone can ring: "+
			"correct one, or give each its own Plivo number in plivoNumbers",
			pairing.Caller(), first.Caller(), first.line)
	default:
		lookup[caller] = pairing
	}
}

// number reads a phone number as people write it; Number{} if it isn't one. Ten digits without + are refused:
// the country code may be missing, and then the first digits would be taken for another country's code.
func (p *parser) number(line int32, what string, value any) Number {
	text, isText := value.(string)
	if !isText {
		p.problem(line, "the %s must be one phone number in double quotes; a Plivo number with its pairings "+
			"belongs directly inside plivoNumbers", what)
		return Number{}
	}
	number, err := ParseNumber(text)
	if len(number.Digits()) == 10 && !strings.Contains(text, "+") {
		err = errors.New("it has ten digits; put its country code in front (1 in North America), or just a +")
	}
	if err != nil {
		p.problem(line, "the %s is not a phone number: %v", what, err)
		return Number{}
	}
	return number
}

func (p *parser) integer(m member, name string, limit int, fallback *int) *int {
	if !m.given() {
		return fallback
	}
	number, _ := m.value.(json.Number)
	n, err := strconv.Atoi(number.String())
	if err != nil || n < 1 || n > limit {
		p.problem(m.line, "%s must be a whole number from 1 to %d, without quotes", name, limit)
	}
	return &n
}

func (p *parser) message(m member, name string) string {
	const limit = 10_000 // bytes; Plivo takes 100 kB of XML: https://www.plivo.com/docs/voice/xml/request
	text, isText := m.value.(string)
	if m.given() && (!isText || len(text) > limit) {
		p.problem(m.line, "%s must be a text in double quotes, of at most %d bytes", name, limit)
	}
	return text
}

// language reads one of the languages in which Plivo has its default voice, a woman's. Given any other, Plivo
// drops the whole answer.
func (p *parser) language(m member) string {
	const languages = "arb cmn-CN cy-GB da-DK de-DE en-AU en-GB en-IN en-US es-ES es-MX es-US fr-CA fr-FR " +
		"hi-IN is-IS it-IT ja-JP ko-KR nb-NO nl-NL pl-PL pt-BR pt-PT ro-RO ru-RU sv-SE tr-TR"
	text, _ := m.value.(string)
	if m.given() && !slices.Contains(strings.Fields(languages), text) {
		p.problem(m.line, "call.language must be one of these, in double quotes: %s", languages)
	}
	return text
}

// section returns the members of an object that has only these keys, each once.
func (p *parser) section(m member, name, example string, keys ...string) map[string]member {
	members := map[string]member{}
	for _, setting := range p.object(m, name, example, keys) {
		first, again := members[setting.key]
		switch {
		case !slices.Contains(keys, setting.key):
			p.problem(setting.line, "unknown key in %s, which has only these: %s; pairings belong inside "+
				`customerAgentMap, or in plivoNumbers inside a Plivo number, as { "CUSTOMER": "AGENT" }`,
				name, strings.Join(keys, ", "))
		case again:
			p.problem(setting.line, "this key is on line %d, too: write one with what both hold", first.line)
		default:
			members[setting.key] = setting
		}
	}
	return members
}

// object returns the members of an object; none if it is not given. If one of them has the key of a section
// of the file, and keys does not list it, a closing brace may be missing before it: that is reported, and
// only the members before it are returned. keys is nil for a map of phone numbers.
func (p *parser) object(m member, name, example string, keys []string) []member {
	members, isObject := m.value.([]member)
	if m.given() && !isObject {
		p.problem(m.line, "%s must be an object such as %s", name, example)
	}
	for i, inner := range members {
		if slices.Contains(sections, inner.key) && !slices.Contains(keys, inner.key) {
			p.problem(inner.line, "%s is inside %s, which is an object such as %s: if a closing brace is "+
				"missing, add it before this", inner.key, name, example)
			return members[:i]
		}
	}
	return members
}

// A member of an object is a key and its value; member{} if it is not given.
type member struct {
	key   string
	line  int32 // of the key, from 1
	value any   // a []member, a string or a json.Number; anything else is never right
}

func (m member) given() bool { return m.line > 0 }

// value reads the next value of data. No Token fails, since data is valid.
func (p *parser) value() any {
	token, _ := p.json.Token()
	switch token {
	case json.Delim('{'):
		members := []member{}
		for p.json.More() {
			key, _ := p.json.Token()
			end := int(p.json.InputOffset())
			p.line += int32(bytes.Count(p.data[p.counted:end], []byte("\n")))
			p.counted = end
			line := p.line // before p.value changes it
			members = append(members, member{key: key.(string), line: line, value: p.value()})
		}
		_, _ = p.json.Token() // the closing brace
		return members
	case json.Delim('['):
		for p.json.More() {
			p.value()
		}
		_, _ = p.json.Token()
	}
	return token
}

// syntaxProblem says where data stops being JSON, what was found there and what is allowed. That much is true
// whatever the mistake was; it suggests a remedy only where the mistake is certain.
func syntaxProblem(data []byte, bad *json.SyntaxError) (at int, text string) {
	at, place := syntaxPlace(data, bad)
	char, _ := utf8.DecodeRune(data[at:])
	before, rest := bytes.TrimRight(data[:at], " \t\r\n"), data[at:]
	begin := len(data) - len(bytes.TrimLeft(data, " \t\r\n"))
	switch {
	case begin == len(data):
		return at, `the file is empty: write at least { "customerAgentMap": {} }`
	case at == len(data):
		return at, "the file ends too early: its rest, a closing brace or a quote is missing, here or above"
	case place == "in escape":
		return at, "a backslash does not stand for itself in a text: remove it, or write two"
	case char == '\n' || char == '\r': // everywhere but in a text, these are white space
		return at, "a text must end in its line: look for a line break, backslash, or missing or curly quote"
	case !unicode.IsPrint(char):
		return at, visible(char) + ", perhaps invisible, is not allowed here: remove it, or write a space"
	case (at == 0 || data[at-1] == '\n') && mergeMark.Match(rest):
		return at, "a merge conflict: keep the pairings of both sides that still hold, and remove the marks"
	// After a quote, // may belong to a text with an unescaped quote in it, as in "See "//x".
	case comment.Match(rest) && !bytes.HasSuffix(data[:at], []byte(`"`)):
		return at, "JSON has no comments: remove this one, but keep a pairing that it holds"
	case data[begin] != '{':
		return begin, "this is not JSON: the file must begin with {"
	case place == "after a comma" && closingBraces.Match(rest):
		return len(before) - 1, "no comma is allowed before a closing brace: remove it"
	case place == "after object key:value pair" && keyAndColon.Match(rest):
		return len(before), "a comma is missing: write one between two pairs"
	case place == "after top-level value":
		return at, "unexpected " + visible(char) + ": the brace that closes the file belongs at the very end"
	}
	text = "unexpected " + visible(char) + ": only " + expected[place] + " is allowed here"
	if strings.ContainsRune("'`´‘’‚‛“”„‟«»＂＇″′", char) {
		text += `; the double quote of JSON is the straight " (U+0022)`
	}
	// data[at-1] exists, since data begins with {.
	beginsNumber := place == "looking for beginning of value" && strings.ContainsRune("+-.", char)
	if beginsNumber || unicode.IsDigit(char) || unicode.IsDigit(rune(data[at-1])) {
		text += "; a whole number has digits only, without 0 in front; a phone number stands in double quotes"
	}
	return at, text
}

// What is allowed at each place, keyed by encoding/json's words for it, or by "after a comma", which is ours.
var expected = map[string]string{
	"looking for beginning of object key string": "a key in double quotes or a closing brace",
	"after a comma":                  "a key in double quotes",
	"after object key":               "a colon",
	"looking for beginning of value": "a text in double quotes, a whole number or an opening brace",
	"after object key:value pair":    "a comma or a closing brace",
	"after array element":            "a comma or a closing bracket (pairs stand in braces)",
}

// syntaxPlace returns where data stops being JSON, and a name for that place: a key of expected, "in escape",
// "in string", "after top-level value", or "" at the end.
func syntaxPlace(data []byte, bad *json.SyntaxError) (at int, place string) {
	reason := bad.Error() // such as: invalid character 'x' after object key
	if strings.HasPrefix(reason, "unexpected end") {
		return len(data), ""
	}
	at = min(int(bad.Offset), len(data)) - 1
	// Go 1.27's Offset includes the whole bad character, 1.26's only its first byte.
	for at > 0 && !utf8.RuneStart(data[at]) {
		at--
	}
	place = reason[strings.LastIndex(reason, "' ")+2:]
	before := bytes.TrimSpace(data[:at])
	switch {
	case strings.HasPrefix(reason, "invalid character ' '") && data[at] != ' ':
		return len(data), "" // Go 1.26 reports the end of data as a space that isn't there
	case strings.Contains(reason, "escape"):
		return bytes.LastIndexByte(data[:at+1], '\\'), "in escape"
	case strings.Contains(place, "in string"):
		return at, "in string"
	case strings.HasSuffix(place, "object key string") && bytes.HasSuffix(before, []byte(",")):
		return at, "after a comma"
	case expected[place] == "" && place != "after top-level value": // in a number, true or null
		const letters = "truefalsn+-.eE0123456789" // all that a number, true, false and null consist of
		return len(bytes.TrimRight(data[:at], letters)), "looking for beginning of value"
	}
	return at, place
}

// A Number is a phone number in E.164 form, country code first. Only ParseNumber makes one, so it is well
// formed, unless it is Number{}, which stands for none. Whatever prints it shows its last four digits at
// most; Digits returns them all.
type Number struct {
	// The digits as an integer, with every bit inverted. For a Number in an unexported field of another type,
	// fmt ignores Format and prints this integer, so it must not be the phone number.
	inverted uint64
}

// ParseNumber reads a phone number that begins with its country code, written as people do, such as
// +1 (415) 666-7777. The error says what is wrong without showing the number.
func ParseNumber(text string) (Number, error) {
	text = strings.ReplaceAll(text, " ", "")
	digits := strings.TrimPrefix(separators.Replace(text), "+")
	why := ""
	switch bad := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); {
	case bad >= 0 && shortened.MatchString(text):
		why = "a spreadsheet has shortened it; format the column as text and enter it again"
	case strings.HasSuffix(text, "0") && decimalZeros.MatchString(text): // the suffix is quicker to rule out
		why = "it ends like a decimal of a spreadsheet; write it as it is dialled, in digits only"
	case strings.Contains(text, "(0"), strings.Contains(text, "[0"), strings.Contains(text, "（0"):
		why = "it has a 0 in parentheses; write it as it is dialled from abroad"
	case bad >= 0:
		char, _ := utf8.DecodeRuneInString(digits[bad:])
		why = "it has the character " + visible(char) + "; write the number alone, in digits with or " +
			"without + in front, and no extension or dial code"
	case strings.HasPrefix(digits, "0"):
		why = "it begins with 0; begin with the country code, without 0 or 00"
	case len(digits) < 7 || len(digits) > 15:
		why = "it has " + plural(len(digits), "digit") + "; write 7 to 15, country code included"
	case digits[0] == '1' && len(digits) != 11:
		why = fmt.Sprintf("it begins with 1 and has %d digits; numbers of North America have 11", len(digits))
	default:
		value, err := strconv.ParseUint(digits, 10, 64)
		return Number{inverted: ^value}, err
	}
	return Number{}, errors.New(why)
}

// Digits returns the whole number without +, as Plivo sends and takes it; "" for Number{}.
func (n Number) Digits() string {
	if n == (Number{}) {
		return ""
	}
	return strconv.FormatUint(^n.inverted, 10)
}

// String returns the number masked, such as *******7777.
func (n Number) String() string {
	if n == (Number{}) {
		return "none"
	}
	digits := n.Digits()
	return strings.Repeat("*", len(digits)-4) + digits[len(digits)-4:]
}

// Format prints the number masked whatever the verb, even %d.
func (n Number) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.String()) }

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// visible names a character unambiguously, even after the log has escaped it.
func visible(char rune) string {
	words := map[rune]string{
		'"': " (double quote)", '\'': " (single quote)", '`': " (backquote)", '\\': " (backslash)",
		',': " (comma)", ':': " (colon)", ';': " (semicolon)", '{': " (open brace)", '}': " (closing brace)",
	}
	if char > ' ' && char <= '~' {
		return string(char) + words[char]
	}
	return fmt.Sprintf("%#U", char) // such as U+00A0 or U+201C '“'
}

// Patterns of phone numbers and of mistakes in the file.
var (
	separators    = strings.NewReplacer("-", "", ".", "", "(", "", ")", "")
	shortened     = regexp.MustCompile(`^[+]?[0-9]+([.,][0-9]*)?[eE][+]?[0-9]+$`) // as 1.41567E+10
	decimalZeros  = regexp.MustCompile(`^[^.,]*[.,]0+$`)                          // as 14156667777.0
	mergeMark     = regexp.MustCompile(`^(<{7}|={7}|>{7}|\|{7})`)
	comment       = regexp.MustCompile(`^(//|/\*|#|<!--|-- )`)
	closingBraces = regexp.MustCompile(`^}\s*([},]|$)`) // followed by another, a comma or the end
	keyAndColon   = regexp.MustCompile(`^"[^"\n]*"\s*:`)
)
