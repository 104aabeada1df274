#!/bin/sh
# Conversations through the model's chat template in the tasks: the text, no second BOS, a template that fails, and the recipe's
# preparation of prompts.
. "$srcdir/tests/cli/expect.sh"
model=$work/model
cp -r input/tiny "$model"
rm -f "$model/tokenizer_config.json" "$model/chat_template.jinja"
data=$work/data
cat >"$work/input.cfg" <<EOF_CFG
task = "tokenize";
model: { path = "$model"; };
data: { path = "$data"; };
run: { output_dir = "$out"; };
EOF_CFG
complain()
{
    echo "$1"
    failed=1
}

printf '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}\n' >"$data"
refused 1 'the model has no chat template' "$work/input.cfg"
printf '{%% for m in messages %%}<{{ m.role }}>{{ m.content }}{%% endfor %%}{%% if add_generation_prompt %%}<assistant>{%% endif %%}' >"$model/chat_template.jinja"
"$program" "$work/input.cfg" >"$work/log" 2>&1 || { cat "$work/log"; failed=1; }
grep -qF '<user>Hi<assistant>Yo' "$out/tokenize.jsonl" || complain "tokenize: $(cat "$out/tokenize.jsonl")"
rm -rf "$out"
echo '{{ raise_exception("not " ~ messages[0].role) }}' >"$work/own.jinja"
refused 1 'own.jinja:1: the template refuses: not user' -s data.chat_template="$work/own.jinja" "$work/input.cfg"
refused 1 'data:1: ' -s data.chat_template="$work/own.jinja" "$work/input.cfg"
refused 1 'none.jinja: cannot open' -s data.chat_template="$work/none.jinja" "$work/input.cfg"

# prompts: as TRL renders them
printf '{"prompt": [{"role": "user", "content": "Hi"}]}\n' >"$data"
"$program" -s task=generate -s generate.max_new_tokens=2 "$work/input.cfg" >"$work/log" 2>&1 || { cat "$work/log"; failed=1; }
grep -qF '"<user>Hi<assistant>"' "$out/generate.jsonl" || complain "generate: $(cat "$out/generate.jsonl")"
rm -rf "$out"

# sft: what is masked stands before the bar
printf '{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Yo"}]}\n' >"$data"
"$program" -s task=sft -s run.max_steps=1 -s sft.batch_size=1 "$work/input.cfg" >"$work/log" 2>&1 || { cat "$work/log"; failed=1; }
grep -q '>.* |.*[Yy]' "$work/log" || complain "no masked example: $(grep 'the first' "$work/log")"
rm -rf "$out"

# prompts beyond the context: counted, and refused or cut
long=$(printf 'a film %.0s' $(seq 1 2000))
printf '{"prompt": "%s"}\n{"prompt": "short"}\n' "$long" >"$data"
refused 1 '1 of 2 rows have more than' -s task=generate -s data.truncation=error "$work/input.cfg"
"$program" -s task=generate -s generate.max_new_tokens=2 "$work/input.cfg" >"$work/log" 2>&1 || { cat "$work/log"; failed=1; }
grep -q '1 prompts are longer than .* and were cut' "$work/log" || complain "cut prompts are not told"
rm -rf "$out"

# the recipe's prompts: reviews of more than 200 characters, the first n tokens of each, n drawn from 2 .. 7
for i in $(seq 1 120); do printf '{"text": "%s"}\n' "$(printf 'I saw this film and%.0s ' 1 2 3 4 5 6 7 8 9 10 11)"; done >"$data"
printf '{"text": "%0200d"}\n' 1 >>"$data"
"$program" -s task=generate -s generate.max_new_tokens=1 -s data.min_chars=201 -s 'data.prompt_tokens=[2,8]' \
    -s data.add_special_tokens=false "$work/input.cfg" >"$work/log" 2>&1 || { cat "$work/log"; failed=1; }
[ "$(wc -l <"$out/generate.jsonl")" = 120 ] || complain "a review of 200 characters is not left out"
cp "$out/generate.jsonl" "$data"
rm -rf "$out"
"$program" -s data.add_special_tokens=false "$work/input.cfg" >"$work/log" 2>&1 || { cat "$work/log"; failed=1; }
lengths=$(sed 's/.*"ids": \[\([^]]*\)\].*/\1/' "$out/tokenize.jsonl" | tr -cd ',\n' | awk '{ print length + 1 }' | sort -n | uniq -c | awk '{ print $2 }' | tr '\n' ' ')
[ "$lengths" = '2 3 4 5 6 7 ' ] || complain "prompts of $lengths tokens"
exit $failed
