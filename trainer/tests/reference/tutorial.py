"""The script with which a tutorial's reader tries the fine-tuned model.

Usage: tutorial.py MODEL IMAGE PROMPT

Only its prompt goes through apply_chat_template, as Qwen2-VL needs. Runs under transformers 4
with AutoModelForVision2Seq, which 5 has renamed to AutoModelForImageTextToText. Prints the
answer as JSON.
"""

import json
import sys

import transformers
from PIL import Image
from transformers import AutoProcessor

model_path, image_path, question = sys.argv[1:]
if transformers.__version__.startswith("4."):
    from transformers import AutoModelForVision2Seq as AutoModel
else:
    from transformers import AutoModelForImageTextToText as AutoModel

processor = AutoProcessor.from_pretrained(model_path)
model = AutoModel.from_pretrained(model_path)

image = Image.open(image_path)
messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(images=image, text=prompt, return_tensors="pt").to(model.device)
outputs = model.generate(**inputs, max_new_tokens=12, do_sample=False)
new = outputs[0][inputs["input_ids"].shape[1] :]
print(json.dumps({"ids": new.tolist(), "text": processor.decode(new, skip_special_tokens=True)}))
