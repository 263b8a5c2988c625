"""The official SDK of Anthropic for Python, through the gateway. Prints what came of each call as one document."""
import json
import sys

import anthropic

url, key = sys.argv[1:]
client = anthropic.Anthropic(base_url=url, api_key=key)
messages = [{"role": "user", "content": "Say hello."}]
said = {}


def failure(call):
    try:
        call()
    except anthropic.APIStatusError as error:
        return {"kind": type(error).__name__, "status": error.status_code, "code": error.body["error"]["type"]}
    return None


chat = client.messages.create(model="claude", messages=messages, max_tokens=20)
said["chat"] = {"text": chat.content[0].text, "output": chat.usage.output_tokens}

with client.messages.stream(model="claude", messages=messages, max_tokens=20) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
said["stream"] = {"text": text, "usage": final.usage.output_tokens, "finish": final.stop_reason}

said["refused"] = failure(lambda: client.messages.create(model="tiny", messages=messages, max_tokens=500))
said["broken"] = failure(lambda: client.messages.create(model="breaks", messages=messages, max_tokens=20))
said["again"] = [
    client.messages.create(model="again", messages=messages, max_tokens=20).usage.output_tokens for _ in range(2)
]
stranger = anthropic.Anthropic(base_url=url, api_key="nobody")
said["stranger"] = failure(lambda: stranger.messages.create(model="claude", messages=messages, max_tokens=20))
print(json.dumps(said))
