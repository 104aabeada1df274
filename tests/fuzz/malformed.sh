#!/bin/sh
# Writes malformed files, the same bytes each time: sound ones of this tree, each with one thing wrong.
#   tests/fuzz/malformed.sh FOLDER    from the source tree
# FOLDER gets one folder for each kind, named as the file is: config.json, adapter_config.json, adapter_model.safetensors,
# model.safetensors, tokenizer.json, tokenizer_config.json, chat_template.jinja, data.jsonl, data.csv; in it, a file a case, named after what is
# wrong. tests/cli/malformed.sh gives them to the program.
LC_ALL=C
export LC_ALL
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
to=$1
model=tests/reference/llama-gqa
adapter=$model/adapter

# kind NAME SOUND: what follows goes to this kind of file, and starts from the sound one
kind()
{
    kind=$to/$1 sound=$2
    mkdir -p "$kind"
}

# edit WHAT SED: the sound file with something changed; it must change
edit()
{
    sed "$2" "$sound" >"$kind/$1"
    if cmp -s "$sound" "$kind/$1"; then
        echo "$kind: $1 changes nothing" >&2
        exit 1
    fi
}

# value KEY VALUE..: the key's number or word becomes each of these
value()
{
    key=$1
    shift
    for v; do
        edit "$key-$(printf %s "$v" | tr -c 'a-zA-Z0-9.\n-' _ | cut -c1-40)" "s|\"$key\": *[^]\[{},]*[^]\[{}, ]|\"$key\": $v|"
    done
}

# bytes WHAT FORMAT: the whole file as printf writes it
bytes()
{
    printf "$2" >"$kind/$1"
}

# What no reader of a file that must not be empty may take.
no_text()
{
    bytes empty ''
    bytes white-space ' \n\t \n'
    bytes lfs-pointer 'version https://git-lfs.github.com/spec/v1\noid sha256:3233ed613dccb25b81151e5dc846eb77\nsize 8136360\n'
    bytes web-page '<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n'
    bytes gzip '\037\213\010\0\0\0\0\0\0\003\253\126\112\002\0'
    bytes pickle '\200\002}q\0X\001\0\0\0aK\001s.'
    bytes zeros '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    bytes utf-16 '\377\376{\0\042\0a\0\042\0:\0001\0}\0'
    bytes high-bytes '\377\377\377\377\377\377\377\377'
}

# What is no JSON object, or no JSON, or more than this format has.
no_json()
{
    n=$(wc -c <"$sound")
    for part in 4 2; do
        head -c $((n / part)) "$sound" >"$kind/cut-at-1-$part"
    done
    sed '$d' "$sound" >"$kind/last-line-missing"
    bytes array '[1, 2]\n'
    bytes string '"config"\n'
    bytes number '17\n'
    bytes null 'null\n'
    bytes two-brackets '[[\n'
    bytes no-value '{"a": }\n'
    bytes bad-escape '{"a": "\\x41"}\n'
    bytes open-string '{"a": "b\n'
    { head -c 200000 /dev/zero | tr '\0' '['; } >"$kind/deep"
    { printf '{"a": '; yes '{"a":' | head -n 100000 | tr -d '\n'; } >"$kind/deep-objects"
    { cat "$sound"; echo '}'; } >"$kind/bracket-too-many"
    { cat "$sound"; cat "$sound"; } >"$kind/twice"
    { printf '\357\273\277'; cat "$sound"; } >"$kind/byte-order-mark"
    edit single-quotes "s/\"/'/g"
    edit comment '1s|{|{ // why not|'
    edit comma-too-many 's/^}/,}/'
    edit no-quotes '1s|{|{ key: 1,|'
    edit nan '1s|{|{ "x": NaN,|'
    edit hexadecimal '1s|{|{ "x": 0x10,|'
    edit plus '1s|{|{ "x": +1,|'
    edit leading-zero '1s|{|{ "x": 01,|'
    edit number-too-large '1s|{|{ "x": 1e999,|'
    edit lone-surrogate '1s|{|{ "x": "\\ud800",|'
    edit bad-utf-8 "1s|{|{ \"x\": \"$(printf '\303')\",|"
    edit overlong-utf-8 "1s|{|{ \"x\": \"$(printf '\300\200')\",|"
    edit tab-in-string "1s|{|{ \"x\": \"$(printf '\t')\",|"
    edit nul-in-key '1s|{|{ "x\\u0000": 1,|'
    { printf '{ "x\0": 1,'; sed '1s/{//' "$sound"; } >"$kind/nul-in-string"
}

kind config.json $model/config.json
no_text
no_json
for key in hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads vocab_size \
    max_position_embeddings head_dim; do
    value $key '"24"' -1 0 1.5 2147483648 99999999999999999999 '[]' '{"a": 1}'
done
for key in hidden_size intermediate_size num_hidden_layers num_attention_heads vocab_size model_type; do
    edit "$key-missing" "/\"$key\"/d"
done
value model_type '""' 7 '"transformer"' '["llama"]' null
value hidden_act '"softmax"' 7 '[]'
value rms_norm_eps '"x"' -1 '[]' 1e999
value rope_theta '"x"' -1 0 '[]'
value rope_type '"spiral"' 7
value tie_word_embeddings '"yes"' 7
value num_attention_heads 3 4097
value head_dim 7 65536
value vocab_size 62 60

kind adapter_config.json $adapter/adapter_config.json
no_text
no_json
value r 0 -1 1.5 '"4"' 5 4097 99999999999999999999 '[]'
value lora_alpha -1 '"8"' '[]' 1e999
value peft_type '"IA3"' '""' 7 null
value bias '"some"' 7
value use_dora true '"yes"'
value use_rslora '"yes"'
value fan_in_fan_out '"yes"'
value modules_to_save 7 '[7]'
value layers_to_transform '"all"' '[-1]' '[1.5]' '[99]'
value exclude_modules 7 '"(a+"'
edit r-missing '/"r":/d'
edit peft_type-missing '/"peft_type"/d'
edit rank_pattern-list 's/"rank_pattern": {}/"rank_pattern": []/'
edit rank_pattern-word 's/"rank_pattern": {}/"rank_pattern": {"q_proj": "4"}/'
edit rank_pattern-zero 's/"rank_pattern": {}/"rank_pattern": {"q_proj": 0}/'
edit rank_pattern-other-shape 's/"rank_pattern": {}/"rank_pattern": {"q_proj": 3}/'
edit alpha_pattern-list 's/"alpha_pattern": {}/"alpha_pattern": [1]/'
edit alpha_pattern-word 's/"alpha_pattern": {}/"alpha_pattern": {"q_proj": "x"}/'
edit targets-number '/loftq_config/d; s/"target_modules": \[/"target_modules": 7, "loftq_config": [/'
edit targets-empty '/loftq_config/d; s/"target_modules": \[/"target_modules": [], "loftq_config": [/'
edit targets-null '/loftq_config/d; s/"target_modules": \[/"target_modules": null, "loftq_config": [/'
edit targets-of-numbers '/loftq_config/d; s/"target_modules": \[/"target_modules": [7], "loftq_config": [/'
edit targets-unknown '/loftq_config/d; s/"target_modules": \[/"target_modules": ["nothing"], "loftq_config": [/'
edit targets-bad-regex '/loftq_config/d; s/"target_modules": \[/"target_modules": "(a+", "loftq_config": [/'

# safetensors WHAT HEADER N_DATA [N_HEADER]: this header and zeros; N_HEADER: another length than the header's, octal bytes
safetensors()
{
    printf "${4:-\\$(printf %o ${#2})\\0\\0\\0\\0\\0\\0\\0}%s" "$2" >"$kind/$1"
    head -c "$3" /dev/zero >>"$kind/$1"
}

# The two files of weights: one whole tensor of the model's, and what may be wrong with its description.
no_weights()
{
    t=$1
    no_text
    for part in 8 3 2; do
        head -c $(($(wc -c <"$sound") / part)) "$sound" >"$kind/cut-at-1-$part"
    done
    { cat "$sound"; echo; } >"$kind/byte-too-many"
    sed "s/\"$t\"/\"${t%?}X\"/" "$sound" >"$kind/other-name"
    safetensors header-empty '' 0
    safetensors header-no-json '{"a": ' 0
    safetensors header-array '[]' 0
    safetensors header-huge '{}' 0 '\377\377\377\377\377\377\377\177'
    safetensors header-negative '{}' 0 '\377\377\377\377\377\377\377\377'
    safetensors header-longer '{}' 0 '\012\0\0\0\0\0\0\0'
    safetensors no-tensors '{}' 0
    safetensors tensor-number "{\"$t\":7}" 0
    safetensors tensor-empty "{\"$t\":{}}" 0
    safetensors dtype-unknown "{\"$t\":{\"dtype\":\"F7\",\"shape\":[4],\"data_offsets\":[0,16]}}" 16
    safetensors dtype-number "{\"$t\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,16]}}" 16
    safetensors shape-other "{\"$t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}" 16
    safetensors shape-negative "{\"$t\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}" 16
    safetensors shape-huge "{\"$t\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,16]}}" 16
    safetensors shape-words "{\"$t\":{\"dtype\":\"F32\",\"shape\":[\"4\"],\"data_offsets\":[0,16]}}" 16
    safetensors offsets-backwards "{\"$t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}" 16
    safetensors offsets-beyond "{\"$t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,1600]}}" 16
    safetensors offsets-one "{\"$t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}" 16
    safetensors offsets-huge "{\"$t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,99999999999999999999]}}" 16
    safetensors offsets-of-too-few-bytes "{\"$t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,8]}}" 16
    safetensors overlap "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}" 12
}

kind adapter_model.safetensors $adapter/adapter_model.safetensors
no_weights base_model.model.model.layers.0.mlp.down_proj.lora_A.weight
kind model.safetensors $model/model.safetensors
no_weights model.embed_tokens.weight

kind tokenizer.json tests/fuzz/seeds/metaspace.json
no_text
no_json
edit duplicate-key '1s|{|{ "model": 1,|'
for stage in '"NFC"' '"Metaspace"' '"TemplateProcessing"' '"ByteFallback"' '"BPE"'; do
    edit "type-$(echo $stage | tr -d '"')-unknown" "s/\"type\": $stage/\"type\": \"Odd\"/"
    edit "type-$(echo $stage | tr -d '"')-number" "s/\"type\": $stage/\"type\": 7/"
done
value unk_token 7 '"none"' '[]'
value fuse_unk 7 '"yes"'
value byte_fallback 7
value replacement 7 '""' '"ab"'
value prepend_scheme '"last"'
value start -1 '"1"' 1.5
value individual_digits 7
value behavior '"Apart"' 7
edit id-taken 's/"o": 16/"o": 17/'
edit id-negative 's/"o": 16/"o": -1/'
edit id-huge 's/"o": 16/"o": 2147483648/'
edit id-fraction 's/"o": 16/"o": 1.5/'
edit id-word 's/"o": 16/"o": "16"/'
edit token-twice 's/"o": 16/"v": 16/'
edit merge-of-one 's/"f i"/"fi"/'
edit merge-of-three 's/"f i"/"f i i"/'
edit merge-number 's/"f i"/7/'
edit merge-unknown 's/"f i"/"f zz"/'
edit merge-makes-none 's/"f i"/"f a"/'
edit regex-open 's/ {2,}/(a/'
edit regex-huge 's/ {2,}/(a{60000}){60000}/'
edit regex-of-sets 's/ {2,}/[a\&\&[b]]/'
edit template-without-text 's/"Sequence": {"id": "A", "type_id": 0}/"SpecialToken": {"id": "<s>", "type_id": 0}/'
edit template-of-unknown 's/"ids": \[1\]/"ids": [60]/'
edit added-id-taken 's/"id": 18/"id": 17/'
edit added-number 's/"content": "film"/"content": 7/'
edit added-empty 's/"content": "film"/"content": ""/'
edit added-flag 's/"single_word": true/"single_word": 7/'

sound=tests/fuzz/seeds/wordpiece.json
value unk_token '"gone"'
value max_input_chars_per_word -1 '"100"' 1.5
value continuing_subword_prefix 7 null
value clean_text 7
value strip_accents '"no"'
value cleanup '"yes"'
edit pieces-id-taken 's/"why": 22/"why": 21/'
edit pieces-list 's/"vocab": {/"vocab": [], "was": {/'
edit around-unknown 's/"\[SEP\]", 3\]/"[SEP]", 77]/'
edit around-number 's/"sep": \["\[SEP\]", 3\]/"sep": 3/'
edit model-unknown 's/"WordPiece",$/"Unigram",/'

kind tokenizer_config.json tests/fuzz/seeds/tokenizer_config.json
no_text
no_json
value bos_token 7 '[]' true

# text WHAT TEXT: the whole file
text()
{
    printf '%s\n' "$2" >"$kind/$1"
}

kind chat_template.jinja tests/fuzz/seeds/chat_template.jinja
bytes bad-utf-8 '{{ "\377\376" }}'
bytes nul '{{ "a\0" + }}'
bytes binary '\037\213\010{%%\0\0'
text open-expression '{{ messages'
text open-statement '{% for m in messages'
text open-comment '{# nothing'
text open-string "{{ 'a }}"
text open-bracket '{{ messages[0 }}'
text open-call '{{ raise_exception("a" }}'
text open-raw '{% raw %} {{ a }}'
text open-for '{% for m in messages %}{{ m.content }}'
text open-if '{% if messages %}a'
text open-macro '{% macro f(a) %}{{ a }}'
text open-set '{% set a %}b'
text end-without-begin '{% endfor %}'
text end-of-another '{% for m in messages %}{% endif %}'
text else-alone '{% else %}'
text elif-behind-else '{% if a %}{% else %}{% elif b %}{% endif %}'
text no-expression '{{ }}'
text no-statement '{% %}'
text operator-alone '{{ + }}'
text operator-at-end '{{ 1 + }}'
text two-expressions '{{ 1 2 }}'
text comma-first '{{ [, 1] }}'
text assigns-number '{% set 1 = 2 %}'
text assigns-nothing '{% set a = %}'
text for-without-in '{% for m messages %}{% endfor %}'
text unknown-statement '{% while true %}{% endwhile %}'
text unknown-filter '{{ messages | shuffle }}'
text unknown-test '{{ messages is lovely }}'
text unknown-function '{{ exec("ls") }}'
text unknown-method '{{ "a".explode() }}'
text includes '{% include "/etc/passwd" %}'
text imports '{% import "a" as b %}'
text extends '{% extends "a" %}'
text inner-attribute '{{ "".__class__.__mro__ }}'
text item-of-nothing '{{ nothing.at.all }}'
text number-and-text '{{ 1 + "a" }}'
text list-and-number '{{ messages + 1 }}'
text text-minus-text '{{ "a" - "b" }}'
text divides-by-zero '{{ 1 / 0 }}'
text remainder-of-zero '{{ 1 % 0 }}'
text compares-kinds '{{ 1 < "a" }}'
text loops-over-number '{% for m in 7 %}{% endfor %}'
text unpacks-text '{% for a, b in messages[0].role %}{% endfor %}'
text raises '{{ raise_exception("only users may speak") }}'
text calls-text '{{ "a"() }}'
text macro-without-argument '{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2, 3) }}'
text recursion '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}'
text range-without-end '{% for i in range(99999999999) %}{% for j in range(99999999999) %}a{% endfor %}{% endfor %}'
text text-without-end '{{ "a" * 99999999999 }}'
text number-without-end '{{ 9 ** 9 ** 9 ** 9 }}'
{ head -c 100000 /dev/zero | tr '\0' '('; } | { printf '{{ '; cat; printf ' }}'; } >"$kind/deep-brackets"
{ head -c 100000 /dev/zero | tr '\0' '['; } | { printf '{{ '; cat; } >"$kind/deep-lists"
{ yes '{% if a %}' | head -n 20000 | tr -d '\n'; } >"$kind/deep-ifs"
{ printf '{{ '; yes 'not' | head -n 50000 | tr '\n' ' '; printf 'a }}{{ nothing.at.all }}'; } >"$kind/deep-nots"
{ printf '{{ 1'; yes ' + "a"' | head -n 50000 | tr -d '\n'; printf ' }}'; } >"$kind/long-sum"

# rows WHAT FORMAT: what printf writes, after a row that is sound
rows()
{
    { cat "$sound"; printf "$2"; } >"$kind/$1"
}

kind data.jsonl tests/fuzz/seeds/rows.jsonl
no_text
rows array '["a"]\n'
rows number '7\n'
rows string '"a film"\n'
rows no-field '{"title": "a"}\n'
rows no-fields '{}\n'
rows field-number '{"text": 7}\n'
rows field-list '{"text": ["a"]}\n'
rows field-object '{"text": {"a": 1}}\n'
rows field-true '{"text": true}\n'
rows open-string '{"text": "a\n'
rows open-object '{"text": "a"\n'
rows two-objects '{"text": "a"} {"text": "b"}\n'
rows comma '{"text": "a"},\n'
rows bracket '{"text": "a"}}\n'
rows nul '{"text": "a\\u0000", "text\\u0000": 1}\n'
rows raw-nul '{"text": "a\0"}\n'
rows bad-utf-8 '{"text": "\377\376"}\n'
rows cut-utf-8 '{"text": "\303"}\n'
rows surrogate-utf-8 '{"text": "\355\240\200"}\n'
rows lone-surrogate '{"text": "\\ud800"}\n'
rows escape '{"text": "\033[2J"}\n'
rows bad-escape '{"text": "\\q"}\n'
rows single-quotes "{'text': 'a'}\\n"
rows nan '{"text": "a", "x": NaN}\n'
rows huge-number '{"text": "a", "x": 1e999}\n'
rows ids-negative '{"input_ids": [1, -1]}\n'
rows ids-beyond '{"input_ids": [1, 61]}\n'
rows ids-huge '{"input_ids": [99999999999999999999]}\n'
rows ids-fraction '{"input_ids": [1.5]}\n'
rows ids-words '{"input_ids": ["1"]}\n'
rows ids-empty '{"input_ids": []}\n'
rows ids-object '{"input_ids": {"a": 1}}\n'
rows ids-nested '{"input_ids": [[1]]}\n'
rows python-dict "{'text': None}\\n"
rows carriage-return '\r\r{"text" "a"}\r\n'
{ cat "$sound"; printf '{"text": "'; head -c 300000 /dev/zero | tr '\0' '['; } >"$kind/long-open-string"
{ cat "$sound"; printf '{"text": "a", "x": '; head -c 300000 /dev/zero | tr '\0' '['; echo; } >"$kind/deep"
bytes whole-array '[{"text": "a"}, {"text": "b"}]\n'
bytes pretty '{\n  "text": "a"\n}\n'

kind data.csv tests/fuzz/seeds/rows.csv
bytes empty ''
bytes header-only 'text,n\n'
bytes header-blank '\n\na\n'
bytes no-field 'title,n\na,1\n'
bytes field-twice 'text,text\na,b\n'
bytes tabs 'text\tn\na\t1\n'
rows open-quote '"a,1\n'
rows quote-inside 'a"b,1\n'
rows after-quote '"a"b,1\n'
rows fields-too-many 'a,1,2\n'
rows fields-too-few 'a\n'
rows bad-utf-8 '\377\376,1\n'
rows lone-quote '"\n'
