package data

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tunesmith/internal/nearest"
)

// infoFile is the usual name of a LLaMA-Factory description.
const infoFile = "dataset_info.json"

// infoColumns are the names that a description gives to columns, and ours.
var infoColumns = map[string]string{
	"prompt": "instruction", "query": "input", "response": "output", "history": "history", "messages": "messages",
	"system": "system", "tools": "tools", "chosen": "chosen", "rejected": "rejected", "kto_tag": "label",
}

// infoTags are the tags that name roles, and the roles.
var infoTags = map[string]string{
	"user_tag": user, "assistant_tag": assistant, "observation_tag": tool, "function_tag": call, "system_tag": system,
}

// FromDatasetInfo returns the source that a LLaMA-Factory description (dataset_info.json) gives under a name. File
// names in it are relative to its folder. As there, a column that "columns" does not name is absent as soon as
// "columns" is given, and the same holds for tags.
func FromDatasetInfo(path, name string) (Source, error) {
	info, text, err := readInfo(path)
	if err != nil {
		return Source{}, err
	}
	value, ok := info.get(name)
	if !ok {
		return Source{}, fmt.Errorf("%s: no data set %q%s; it has %s", path, name, nearest.Hint(name, info.keys), quoted(info.keys))
	}
	line := 1
	if i := bytes.Index(text, appendQuoted(nil, name)); i >= 0 {
		line, _ = lineOf(text, i, 1)
	}
	s := Source{origin: Position{File: path, Line: line}, name: name}
	fail := func(remedy, format string, args ...any) (Source, error) {
		p := bad(remedy, name+": "+format, args...)
		return Source{}, p.at(s.origin)
	}
	entry, ok := value.(*object)
	if !ok {
		return fail("write an object", "want an object, have %s", typeName(value))
	}
	for _, remote := range []string{"hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"} {
		if entry.has(remote) && !entry.has("file_name") {
			return fail("fetch the data set, and give its file_name", "%s names data that is not on this machine", remote)
		}
	}
	fileName, _ := entry.get("file_name")
	file, ok := fileName.(string)
	if !ok {
		return fail("name a file", "lacks file_name")
	}
	if !filepath.IsLocal(filepath.FromSlash(file)) {
		return fail("put the file beside the description", "file_name %q leads out of the folder", clip(file, 80))
	}
	s.Path = filepath.Join(filepath.Dir(path), filepath.FromSlash(file))
	if n, _ := entry.get("num_samples"); n != nil {
		number, ok := n.(number)
		if f := number.float(); !ok || f < 1 || f != float64(int(f)) {
			return fail("write a count", "num_samples: want a count, have %s", clip(string(appendJSON(nil, n)), 20))
		}
		s.Limit = int(number.float())
	}
	for _, part := range []string{"columns", "tags"} {
		v, _ := entry.get(part)
		if v == nil {
			continue
		}
		o, err := asObject(name+": "+part, v)
		if err != nil {
			return Source{}, err.(*Problem).at(s.origin)
		}
		for i, key := range o.keys {
			text, isText := o.values[i].(string)
			if o.values[i] == nil {
				continue
			}
			if !isText {
				return fail("write a name", "%s.%s: want text, have %s", part, key, typeName(o.values[i]))
			}
			if err := s.assign(part, key, text); err != nil {
				return fail("remove it, or correct the name", "%v", err)
			}
		}
	}
	style, _ := entry.get("formatting")
	ranking, _ := entry.get("ranking")
	switch conversation := style == "sharegpt" || style == "openai"; {
	case style != nil && style != "alpaca" && !conversation:
		return fail("write alpaca, sharegpt or openai", "formatting %s is unknown", clip(string(appendJSON(nil, style)), 40))
	case ranking == true:
		s.Format = Preferences
	case s.Columns["label"] != "":
		s.Format = KTO
	case style == "openai" || s.RoleTag == "role":
		s.Format = Messages
	case conversation:
		s.Format = ShareGPT
	case s.Columns["instruction"] != "" && s.Columns["output"] == "":
		s.Format, s.Columns["text"] = PlainText, s.Columns["instruction"] // how text to continue on is described
	default:
		s.Format = Alpaca
	}
	return s, s.check()
}

// assign enters one column or tag of a description.
func (s *Source) assign(part, key, name string) error {
	if part == "columns" {
		column := infoColumns[key]
		if column == "" {
			if key == "images" || key == "videos" || key == "audios" {
				return fmt.Errorf("columns.%s: only text is trained", key)
			}
			return fmt.Errorf("columns.%s is unknown", key)
		}
		if s.Columns == nil {
			s.Columns = map[string]string{}
		}
		s.Columns[column], s.exact = name, true
		return nil
	}
	switch role := infoTags[key]; {
	case key == "role_tag":
		s.RoleTag = name
	case key == "content_tag":
		s.ContentTag = name
	case role != "":
		if s.Roles == nil {
			s.Roles = map[string]string{}
		}
		s.Roles[name] = role
	default:
		return fmt.Errorf("tags.%s is unknown", key)
	}
	return nil
}

// InfoNames returns the names of the data sets that a LLaMA-Factory description holds.
func InfoNames(path string) ([]string, error) {
	info, _, err := readInfo(path)
	if err != nil {
		return nil, err
	}
	return info.keys, nil
}

// maxInfo bounds the size of a description.
const maxInfo = 16 << 20

func readInfo(path string) (*object, []byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, missingFile(path, err)
	}
	if st.Size() > maxInfo {
		return nil, nil, fmt.Errorf("%s: %s is too long for a description of data sets", path, megabytes(int(st.Size())))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("data: %w", err)
	}
	r, err := parseRow(Position{File: path, Line: 1}, []byte(strings.TrimPrefix(string(text), "\ufeff")))
	if err != nil {
		return nil, nil, err
	}
	return r.columns, text, nil
}
