#!/usr/bin/env python3
"""Records what small templates give in transformers' Jinja environment: tests/reference/jinja.jsonl, a line each:
{"template": .., "text": ..}, or {"template": .., "error": true} where Jinja raises. The variables are those of VARIABLES.

    python tests/reference/record_jinja.py [FILE]
"""
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers.utils.chat_template_utils import _compile_jinja_template

VARIABLES = dict(
    s="a b", n=None, i=7, f=2.5, t=True, e="", u="h\u00e9llo w\u00f6rld \u4f60\u597d \U0001f600", q="it's \"quoted\" \\ \n\t\u0000\u007f",
    x=[3, 1, 2], d={"b": 1, "a": [1, {"k": None}], "C": "x"}, w=" \u00a0\u2003 x y \n", m="a\nb\n\nc", z="a,b,,c",
    items=[{"n": "b", "v": 2, "on": True}, {"n": "A", "v": 1, "on": False}, {"n": "c", "v": 3}], items_key={"items": 5, "get": 6},
    messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}], html="<a & 'b'>", nested=[[1, 2], [3, 4]],
    floats=[1.0, 0.1, 1e16, 1e-5, 123456789.125, -0.0, 1e100, 3.0e-10], neg=-7)

TEMPLATES = r"""
{{ s }}|{{ n }}|{{ i }}|{{ f }}|{{ t }}|{{ nope }}|{{ x }}|{{ d }}|{{ q }}
{{ [q, u, 'it"s', "it's", [1], (1,), (), {}, 1.0, none, true] }}
{{ floats }}{{ floats | tojson }}
{{ 1_000 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 0 }} {{ 00 }}
{{ 01 }}
{{ 9223372036854775807 }} {{ -9223372036854775807 }}
{{ 'a' 'b' "c" }}{{ 'x\n\t\\\'\"\x41\u00e9\101\q' }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ - i }} {{ + i }} {{ -f }} {{ 1 - - 1 }}
{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 3 * 'ab' }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ true + 1 }} {{ 'a' * -1 }}|
{{ 'a' + 1 }}
{{ 'a' + none }}
{{ 'a' + nope }}
{{ nope + 1 }}
{{ [1] + (2,) }}
{{ 'a' ~ 1 ~ none ~ nope ~ [1] ~ 1.5 }}
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 2 == 2.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ 'a' == 1 }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ none == none }} {{ nope == nope }} {{ nope == none }} {{ 1 != 2 }}
{{ 'a' < 1 }}
{{ none < 1 }}
{{ 'b' in 'abc' }} {{ '' in 'abc' }} {{ 2 in x }} {{ 'a' in d }} {{ 'q' not in d }} {{ not 'q' in d }} {{ 1 in nope }} {{ none in [none] }} {{ (1,) in [(1,)] }}
{{ 1 in 'abc' }}
{{ 1 in none }}
{{ nope in 'abc' }}
{{ true and false or true }} {{ not true and false }} {{ 0 or 'x' }} {{ '' or [] }} {{ 1 and 2 }} {{ nope or 'd' }} {{ not nope }} {{ not not 1 }}
{{ 'y' if t else 'n' }} {{ 'y' if nope }} {{ 'a' if false else 'b' if false else 'c' }} {{ ('x' if t) + 'z' }}
{{ ('x' if e) + 'z' }}
{{ x[0] }} {{ x[-1] }} {{ x[9] }} {{ x[1:] }} {{ x[:1] }} {{ x[::-1] }} {{ x[::2] }} {{ x[-2:] }} {{ x[5:] }} {{ x[:-1] }} {{ x[2:0:-1] }} {{ x[none:2] }}
{{ s[0] }} {{ s[-1] }} {{ s[9] }} {{ u[1] }} {{ u[1:4] }} {{ u[::-1] }} {{ u[-1] }} {{ s[1:] }} {{ u[12:] }} {{ (1, 2, 3)[1:] }}
{{ x[::0] }}
{{ x['a'] }} {{ x.a }} {{ s.a }} {{ i.a }} {{ n.a }} {{ n['a'] }} {{ d['zz'] }} {{ d.zz }} {{ d[0] }} {{ i[0] }} {{ x[1.5] }}
{{ d[[1]] }}
{{ d[1:] }}
{{ i[:2] }}
{{ nope[1:] }}
{{ nope.a }}
{{ nope['a'] }}
{{ d.zz.y }}
{{ x.0 }} {{ x.2 }} {{ nested.1.0 }}
{{ d.a[1].k }} {{ d['a'][0] }} {{ d.b }} {{ d.C }} {{ messages[0].role }} {{ messages[-1]['content'] }}
{{ items_key['items'] }} {{ items_key.get('items') }} {{ items_key['get'] }}
{{ items_key.items() | list }}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 'dflt') }} {{ d.copy() }}
{{ d.update({'x': 1}) }}
{{ x.append(1) }}
{{ d.pop('b') }}
{{ x.index(1) }} {{ x.count(3) }} {{ (1, 2).index(2) }}
{{ x.index(9) }}
{{ s.upper() }} {{ s.title() }} {{ 'heLLo wORLD' .capitalize() }} {{ "they're bill's" .title() }} {{ u.upper() }} {{ u.lower() }} {{ 'stra\u00dfe'.upper() }} {{ '\u00c9A'.lower() }}
[{{ w.strip() }}][{{ w.lstrip() }}][{{ w.rstrip() }}][{{ 'xxaxx'.strip('x') }}][{{ 'abcab'.lstrip('ba') }}][{{ w | trim }}][{{ 'xax' | trim('x') }}][{{ none | trim }}]
{{ z.split(',') }} {{ ' a  b c '.split() }} {{ z.split(',', 1) }} {{ ' a  b c '.split(none, 1) }} {{ z.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ m.splitlines() }} {{ 'a--b'.split('--') }} {{ 'abc'.split('x') }}
{{ s.split('') }}
{{ s.startswith('a') }} {{ s.endswith(' b') }} {{ s.startswith(('x', 'a')) }} {{ s.startswith('') }} {{ 'ab'.removeprefix('a') }} {{ 'ab'.removesuffix('b') }} {{ 'ab'.removesuffix('x') }}
{{ s.startswith(1) }}
{{ s.replace(' ', '-') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'aaa' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 1) }} {{ 112 | replace(1, 2) }}
{{ s.find('b') }} {{ s.find('q') }} {{ u.find('w') }} {{ 'aXaXa'.count('a') }} {{ ', '.join(['a', 'b']) }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'a1'.isalpha() }} {{ ' '.isspace() }}
{{ ', '.join([1, 2]) }}
{{ s | upper }} {{ s | lower }} {{ s | capitalize }} {{ 12 | string }}{{ none | string }}{{ nope | string }} {{ x | string | length }}
{{ x | length }} {{ u | length }} {{ d | length }} {{ nope | length }} {{ x | count }} {{ '' | length }}
{{ i | length }}
{{ none | length }}
{{ x | first }} {{ x | last }} {{ [] | first }} {{ s | first }} {{ d | first }} {{ x | sum }} {{ items | sum(attribute='v') }} {{ x | max }} {{ x | min }} {{ ['b', 'A'] | min }}
{{ x | join }} {{ x | join(', ') }} {{ items | join('-', attribute='n') }} {{ s | join('.') }} {{ nope | join(',') }}|
{{ x | sort }} {{ x | sort(reverse=true) }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ items | sort(attribute='v') | map(attribute='n') | list }} {{ items | sort(attribute='n') | map(attribute='v') | join }}
{{ [1, 'a'] | sort }}
{{ d | dictsort }} {{ d | dictsort(true) }} {{ {'a': 2, 'b': 1} | dictsort(by='value') }} {{ d | dictsort(reverse=true) }}
{{ d | items | list }} {{ nope | items | list }}
{{ x | items | list }}
{{ x | reverse | list }} {{ [1, 2, 1, 'a', 'A'] | unique | list }} {{ s | list }} {{ d | list }} {{ x | list }}
{{ items | map(attribute='v') | list }} {{ items | map(attribute='on') | list }} {{ items | map(attribute='on', default='?') | list }} {{ ['a', 'b'] | map('upper') | list }} {{ ['a', 'b'] | map('replace', 'a', 'x') | list }}
{{ x | map('nofilter') | list }}
{{ items | selectattr('on') | map(attribute='n') | list }} {{ items | rejectattr('on') | map(attribute='n') | list }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ items | selectattr('on', 'defined') | list | length }} {{ items | rejectattr('on', 'undefined') | list | length }} {{ items | selectattr('v', '>', 1) | list }}
{{ items | selectattr('v', 'gt', 1) | map(attribute='v') | list }} {{ x | select('odd') | list }} {{ x | reject('odd') | list }} {{ [0, 1, ''] | select | list }} {{ x | select('in', [1, 2]) | list }}
{{ nope | default('x') }} {{ e | default('x') }} {{ e | default('x', true) }} {{ n | default('x') }} {{ n | default('x', boolean=true) }} {{ nope | d('y') }} {{ nope | default }}|{{ d.zz | default('q') }} {{ nope | default(nope) }}|
{{ nope.a | default('x') }}
{{ '12' | int }} {{ 'x' | int }} {{ '3.7' | int }} {{ 3.7 | int }} {{ 'x' | int(5) }} {{ ' 12 ' | int }} {{ true | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ 3 | float }} {{ none | int }} {{ -3 | abs }} {{ -2.5 | abs }}
{{ d | tojson }} {{ u | tojson }} {{ q | tojson }} {{ html | tojson }} {{ n | tojson }} {{ t | tojson }} {{ x | tojson }} {{ 1.0 | tojson }} {{ [] | tojson }} {{ {} | tojson }} {{ (1, 2) | tojson }}
{{ d | tojson(indent=2) }}{{ x | tojson(indent=4) }}{{ [] | tojson(indent=2) }}{{ {'a': {}} | tojson(indent=1) }}
{{ d | tojson(ensure_ascii=true) }}{{ u | tojson(ensure_ascii=true) }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}{{ d | tojson(separators=(',', ':')) }}{{ d | tojson(indent='\t') }}{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}
{{ nope | tojson }}
{{ {'a': nope} | tojson }}
{{ html | e }} {{ html | escape }} {{ html | safe }} {{ (html | safe) ~ '<' }} {{ (html | safe) + '<' }} {{ '<' + (html | safe) }} {{ html | e | e }} {{ (html | safe).strip() + '&' }}
{{ m | indent }}|{{ m | indent(2) }}|{{ m | indent(2, true) }}|{{ m | indent(width=1, blank=true) }}|{{ m | indent('> ') }}
{{ i is defined }} {{ nope is defined }} {{ nope is not defined }} {{ nope is undefined }} {{ n is none }} {{ i is not none }} {{ s is string }} {{ i is number }} {{ t is number }} {{ t is integer }} {{ i is integer }} {{ f is float }} {{ t is boolean }} {{ d is mapping }} {{ x is mapping }}
{{ x is iterable }} {{ s is iterable }} {{ d is iterable }} {{ i is iterable }} {{ n is iterable }} {{ nope is iterable }} {{ x is sequence }} {{ d is sequence }} {{ s is sequence }} {{ i is sequence }} {{ t is true }} {{ 1 is true }} {{ false is false }} {{ i is odd }} {{ i is even }} {{ i is divisibleby 7 }} {{ i is divisibleby(2) }} {{ neg is odd }}
{{ i is eq 7 }} {{ i is equalto(7) }} {{ i is ne 7 }} {{ i is gt 3 }} {{ i is lt 3 }} {{ i is ge(7) }} {{ i is le 7 }} {{ i is in [7] }} {{ i is in(x) }} {{ n is sameas none }} {{ range is callable }} {{ s is callable }} {{ raise_exception is defined }} {{ d.zz is defined }} {{ not nope is defined }}
{{ i is nosuchtest }}
{{ i | nosuchfilter }}
{{ i is defined and s is defined or nope is defined }} {{ (i is odd) == true }} {{ [i is odd, 1] }}
{{ range(3) | list }} {{ range(1, 4) | list }} {{ range(6, 0, -2) | list }} {{ range(0) | list }} {{ dict(a=1, b='x') }} {{ dict(d, z=1).z }}
{{ range('a') }}
{{ raise_exception('no') }}
{{ raise_exception() }}
{{ nosuch() }}
{{ s() }}
{{ s.nosuch() }}
{{ s.upper(1) }}
{{ s | upper(1) }}
{{ s | replace }}
{% for a in x %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }} {{ a }};{% endfor %}
{% for a in [] %}x{% else %}none{% endfor %}{% for a in x %}x{% else %}none{% endfor %}{% for a in nope %}x{% else %}none{% endfor %}
{% for a in none %}{% endfor %}
{% for a in 5 %}{% endfor %}
{% for a in x if a > 1 %}{{ loop.index }}/{{ loop.length }}:{{ a }} {% else %}none{% endfor %}{% for a in x if a > 9 %}{% else %}none{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'héy' %}[{{ c }}]{% endfor %}{% for a, b in nested %}{{ a }}-{{ b }} {% endfor %}{% for (a, b) in nested %}{{ b }}{% endfor %}
{% for a, b in x %}{% endfor %}
{% for a, b, c in nested %}{% endfor %}
{% for a in x %}{% for b in x %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}{{ loop }}
{% for a in x %}{% if a == 1 %}{% continue %}{% endif %}{{ a }}{% endfor %}{% for a in x %}{% if a == 1 %}{% break %}{% endif %}{{ a }}{% endfor %}
{% break %}
{% for a in x %}{{ loop.cycle('p', 'q') }}{{ loop.changed(a > 1) }}{% endfor %}
{% set a = 1 %}{% for b in x %}{% set a = b %}{{ a }}{% endfor %}{{ a }}{% if true %}{% set c = 3 %}{% endif %}{{ c }}{% for b in x %}{{ a }}{% set a = a + b %}{{ a }};{% endfor %}
{% set ns = namespace(v=0, w='x') %}{% for b in x %}{% set ns.v = ns.v + b %}{% endfor %}{{ ns.v }}{{ ns.w }}{{ ns.nope }}{{ ns['v'] }}{% set ns.new = [] %}{{ ns.new }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}
{% set d.x = 1 %}
{% set nope.x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = (3, 4) %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}{% set t2 = 1, %}{{ t2 }}
{% set a, b = 1, 2, 3 %}
{% set blk %}a{{ i }}b{% endset %}{{ blk }}{{ blk | upper }}{{ blk is string }}{% set inner = 1 %}{% set blk %}{% set inner = 2 %}{{ inner }}{% endset %}{{ inner }}
{% macro m(a, b='x', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(1, c=3) }}{{ m() }}{{ m(b=1, a=2) }}{{ m(1) | upper }}{{ m is defined }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}
{% macro fact(k) %}{{ k if k < 2 else k * (fact(k - 1) | int) }}{% endmacro %}{{ fact(5) }}
{% macro outer() %}{{ later }}{% endmacro %}{% set later = 'seen' %}{{ outer() }}{% set g = 1 %}{% macro inner2() %}{% set g = 2 %}{{ g }}{% endmacro %}{{ inner2() }}{{ g }}
{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}
{% generation %}x{% set zz = 1 %}{{ zz }}{% endgeneration %}[{{ zz }}]
{% raw %}{{ not }} {% rendered %}{% endraw %}|{%- raw -%} a {%- endraw -%} b
{# comment #}a{#- c -#} b {# {{ x }} #}c
a{% if t %}b{% endif %}c{% if not t %}x{% elif i == 7 %}y{% elif z %}w{% else %}z{% endif %}d{% if nope %}{% else %}E{% endif %}
a {%- if t -%} b {%- endif -%} c {{- 'd' -}} e {{ 'f' -}} g
a {%+ if t +%} b {%+ endif %} c
{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a': 1,} }}{{ [1, 2,] }}{{ (1) }}{{ (1,) }}{{ () }}{{ 'a' if {'x': 1} }}
{{ {[1]: 2} }}
{{ }}
{{ 1 2 }}
{{ 1 + }}
{{ (1 }}
{{ 'abc }}
{{ a b }}
{% if %}x{% endif %}
{% if t %}x
{% endif %}
{% nosuch %}
{% for in x %}{% endfor %}
{% for a of x %}{% endfor %}
{% set = 1 %}
{% macro %}{% endmacro %}
{{ 1 $ 2 }}
{{ x[ }}
{{ x[1:2:3:4] }}
{{ d. }}
{{ s | }}
{{ s is }}
{# open
{% raw %}open
{{ f(a=1, 2) }}
{{ (1 if t else 2) + 3 }} {{ 1 if t else 2 + 3 }} {{ -1 | abs }} {{ 1 + -1 | abs }} {{ not t == false }} {{ 'a' ~ 'b' | upper }} {{ 1 + 2 | string | length }}
{{ s.upper().lower().split()[0][0] }} {{ (s | upper).lower() }} {{ 'x'.join('abc') }} {{ "a" is string and "b" not in "abc" }}
{{ messages | map(attribute='content') | join(' ') | upper | replace('H', 'J') }}
{{ messages == messages[:] }} {{ messages[0] == messages[-2] }} {{ messages | length - 1 }} {{ messages[messages | length - 1].role }}
{% set loop_messages = messages[1:] if messages[0].role == 'user' else messages %}{{ loop_messages | length }}
{{ none.x is defined }} {{ none.x or 'y' }} {{ d.zz == none }} {{ d.zz or d.b }} {{ (d.zz or {}).get('a', 1) }}
{% set x = [] %}{% set x = x + [1] %}{{ x }}{% for q in [1, 2] %}{% set x = x + [q] %}{% endfor %}{{ x }}
""".strip("\n").split("\n")

LINES = [
    "a\n  {% if t %}\n    b\n  {% endif %}\nc\n", "a\n\n", "{% if t %}\r\nx\r\n{% endif %}\r\ny", "{{ 'a' }}\n{{ 'b' }}\n", "  {# c #}\n  x",
    "x {% set a = 1 %}\n  y", "\t {%- set a = 1 %} \n z", "{% for a in x %}\n  {{ a }}\n{% endfor %}\n", "{%- for a in x %}\n  - {{ a }}\n{%- endfor %}\nend",
    "  {{ s }}\n  {%+ if t %}x{% endif %}\n", "{% raw %}\n  {{ x }}\n{% endraw %}\n  y", "a\n   {% raw %} b {% endraw %} c", "\u00a0{% if t %}x{% endif %}",
    "{% if t -%}\n\n  x\n\n{%- endif %}", "{{ '\n' }}x{{ \"a\nb\" }}", "{% set a %}\n  x\n{% endset %}[{{ a }}]", "{% if t %}{% endif %}\n{% if t %}{% endif %}\n\nx",
    "{#- a -#}\n  x\n  {#- b #}\ny", "{% macro m() %}\n  x\n{% endmacro %}\n[{{ m() }}]", "", "\n", "{{ x }}{{ x }}\n\n\n",
]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "jinja.jsonl")
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(json.dumps({"variables": VARIABLES}, ensure_ascii=False) + "\n")
        for template in TEMPLATES + LINES:
            try:
                row = {"template": template, "text": _compile_jinja_template(template).render(**VARIABLES)}
            except Exception as e:
                row = {"template": template, "error": "%s: %s" % (type(e).__name__, e)}
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


main()
