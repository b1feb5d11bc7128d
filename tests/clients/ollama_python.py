"""Debian's python3-ollama, unchanged, against the server that OLLAMA_HOST names."""

import os

import ollama

client = ollama.Client(host="http://" + os.environ["OLLAMA_HOST"])
BEGIN = ", there was a little girl named Lily. She loved to play outside in the park."

names = [model.get("name") or model.get("model") for model in client.list()["models"]]
assert "stories260k:latest" in names, names

whole = client.generate(model="stories260k", prompt="Once upon a time")
assert whole["response"].startswith(BEGIN), whole["response"]
streamed = "".join(
    part["response"] for part in client.generate(model="stories260k", prompt="Once upon a time", stream=True)
)
assert streamed == whole["response"]

messages = [{"role": "user", "content": "Once upon a time"}]
chat = client.chat(model="stories260k", messages=messages)["message"]["content"]
assert chat.startswith(BEGIN), chat
streamed = "".join(part["message"]["content"] for part in client.chat(model="stories260k", messages=messages, stream=True))
assert streamed == chat

try:
    client.generate(model="missing", prompt="x")
except ollama.ResponseError as error:
    assert error.status_code == 404, error.status_code
else:
    raise AssertionError("a missing model is no error")
print("python3-ollama: ok")
