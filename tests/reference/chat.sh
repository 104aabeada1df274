#!/bin/sh
# The chat templates of templates/ against what transformers rendered (record_chat.py).
exec "${builddir:-.}/tests/reference/chat_check" "${srcdir:-.}/tests/reference/templates" "${srcdir:-.}/tests/reference/chat"
