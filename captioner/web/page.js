// The server judges what is a picture, not the file's name: whatever is chosen, dropped or pasted gets there, and the
// answer is a caption or a sentence that says what is wrong. Gradio would refuse a HEIC photo that the system has no
// type for, and says only "Invalid file type" to others.
(() => {
  const typed = (files) => {
    const transfer = new DataTransfer();
    for (const file of files)
      transfer.items.add(/^image\//.test(file.type) ? file : new File([file], file.name, { type: "image/x-unknown" }));
    return transfer;
  };
  const pictures = (files) => [...files].every((file) => /^image\//.test(file.type));
  const input = () => document.querySelector("#photo input[type=file]");
  document.addEventListener("click", () => {
    if (input()) input().accept = "image/*,.heic,.heif,.hif,.avif,.jp2,.psd,.tga";
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target === input() && !pictures(event.target.files)) event.target.files = typed(event.target.files).files;
  }, true);
  document.addEventListener("drop", (event) => {
    if (!event.target.closest("#photo") || pictures(event.dataTransfer.files)) return;
    event.preventDefault();
    event.stopPropagation();
    const dataTransfer = typed(event.dataTransfer.files);
    event.target.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, true);
  // Gradio gives its examples no name that a screen reader could say, and its place for a photo words of its own.
  new MutationObserver(() => {
    const place = document.querySelector("#photo button.upload-container"), ours = "Drop, choose, take or paste a photo";
    if (place && place.ariaLabel !== ours) place.ariaLabel = ours;
    for (const button of document.querySelectorAll("#examples button.gallery-item:not([aria-label])")) {
      const file = button.querySelector("img")?.src.split("/").pop();
      if (file) button.setAttribute("aria-label", "Example: " + decodeURIComponent(file).slice(0, -".png".length));
    }
  }).observe(document, { childList: true, subtree: true });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length || !input()) return;
    event.preventDefault();
    input().files = typed([event.clipboardData.files[0]]).files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  });

  // ---- a caption's words, sentences and copies ----

  // Where the model looked, over the photo: the model's grid, smoothed, dark where it did not look.
  let pinned = null;
  const veil = () => {
    const old = document.querySelector("#photo canvas.look");
    if (old) return old;
    const canvas = document.createElement("canvas");
    canvas.className = "look";
    canvas.setAttribute("aria-hidden", "true");
    return canvas;
  };
  const unlook = () => {
    document.querySelector("#photo canvas.look")?.remove();
  };
  const look = (word) => {
    const image = document.querySelector("#photo .image-frame img, #photo .image-container img");
    if (!image?.naturalWidth || !word.dataset.look) return;
    const cells = word.dataset.look.split(",").map(Number);
    const columns = Number(word.dataset.columns), rows = cells.length / columns;
    const small = document.createElement("canvas");
    small.width = columns;
    small.height = rows;
    const pixels = small.getContext("2d").createImageData(columns, rows);
    cells.forEach((value, cell) => pixels.data.set([10, 10, 20, 205 * (1 - value / 255)], 4 * cell));
    small.getContext("2d").putImageData(pixels, 0, 0);
    // The photo keeps its proportions inside the img element, and a small one its size.
    const box = image.getBoundingClientRect();
    const largest = getComputedStyle(image).objectFit === "scale-down" ? 1 : Infinity;
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight, largest);
    const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
    const canvas = veil(), place = document.querySelector("#photo");  // not nearer: Gradio builds that anew
    const origin = place.getBoundingClientRect();
    canvas.width = Math.round(width);
    canvas.height = Math.round(height);
    Object.assign(canvas.style, {
      left: `${box.left - origin.left - place.clientLeft + (box.width - width) / 2}px`,
      top: `${box.top - origin.top - place.clientTop + (box.height - height) / 2}px`,
      width: `${width}px`,
      height: `${height}px`,
    });
    const [left, top, right, bottom] = word.closest(".explained").dataset.window.split(",").map(Number);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "rgb(10 10 20 / 80%)";  // what the model did not see
    context.fillRect(0, 0, canvas.width, canvas.height);
    const seen = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    context.clearRect(...seen);
    context.drawImage(small, ...seen);
    place.append(canvas);
  };
  const pin = (word) => {
    document.querySelectorAll(".word[aria-pressed=true]").forEach((other) => other.setAttribute("aria-pressed", "false"));
    pinned = word;
    word?.setAttribute("aria-pressed", "true");
  };
  const wordOf = (event) => event.target.closest?.(".word");
  for (const type of ["pointerover", "focusin"])
    document.addEventListener(type, (event) => {
      if (wordOf(event)) look(wordOf(event));
    });
  for (const type of ["pointerout", "focusout"])
    document.addEventListener(type, (event) => {
      if (!wordOf(event)) return;
      if (pinned?.isConnected) look(pinned);
      else unlook();
    });
  document.addEventListener("keydown", (event) => {
    const sentence = event.target.closest?.(".sentence[contenteditable]");
    if (event.key === "Escape") {
      pin(null);
      unlook();
      if (sentence) edited(sentence, sentence.dataset.before);
    } else if (sentence && event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      edited(sentence, oneLine(sentence));
    }
  });
  addEventListener("resize", () => (pinned?.isConnected ? look(pinned) : unlook()));

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a page that is not served from this machine or with TLS has no clipboard
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  // A sentence in a person's own words: how likely the model held its words is then no longer to be said.
  const oneLine = (sentence) => sentence.textContent.replace(/\s+/g, " ").trim();
  const edit = (sentence) => {
    sentence.dataset.before = sentence.textContent;
    Object.assign(sentence, { contentEditable: "plaintext-only", role: "textbox", ariaLabel: "The caption, to edit" });
    sentence.focus();
    getSelection().selectAllChildren(sentence);
    getSelection().collapseToEnd();
  };
  const edited = (sentence, text) => {
    const panel = sentence.closest(".panel"), button = sentence.closest(".explained").querySelector(".edit");
    sentence.textContent = text;
    for (const name of ["contenteditable", "role", "aria-label"]) sentence.removeAttribute(name);
    panel.classList.toggle("edited", panel.classList.contains("edited") || text !== sentence.dataset.before);
    Object.assign(button, { textContent: "Edit", ariaPressed: "false" });
    button.focus();
  };
  const quoted = (text) => `"${text.replaceAll("&", "&amp;").replaceAll('"', "&quot;")}"`;
  const asHtml = (name, text) => `<img src=${quoted(name)} alt=${quoted(text)}>`;
  document.addEventListener("click", async (event) => {
    const explained = event.target.closest?.(".explained");
    const word = wordOf(event), pick = explained && event.target.closest(".pick"), button = event.target.closest?.(".copy");
    const editor = event.target.closest?.(".edit"), open = explained?.querySelector(".sentence[contenteditable]");
    if (word) {
      const again = word === pinned;
      pin(again ? null : word);
      if (again) unlook();
      else look(word);
    } else if (editor && open) {
      edited(open, oneLine(open));
    } else if (editor) {
      edit(explained.querySelector(".panel:not([hidden]) .sentence"));
      Object.assign(editor, { textContent: "Done", ariaPressed: "true" });
    } else if (pick) {
      if (open) edited(open, oneLine(open));
      explained.querySelectorAll(".panel").forEach((panel) => (panel.hidden = panel.dataset.place !== pick.dataset.place));
      explained.querySelectorAll(".pick").forEach((one) => one.setAttribute("aria-pressed", String(one === pick)));
      pin(null);
      unlook();
    } else if (button && explained) {
      const text = oneLine(explained.querySelector(".panel:not([hidden]) .sentence"));
      await copy(button.dataset.copies === "html" ? asHtml(explained.dataset.name, text) : text);
      const label = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = label), 1500);
    }
  });
  // Another photo, or none: what was looked at is gone.
  new MutationObserver(() => {
    if (document.querySelector("#photo canvas.look") && !document.querySelector(".words .word")) unlook();
    if (pinned && !pinned.isConnected) {
      pinned = null;
      unlook();
    }
  }).observe(document, { childList: true, subtree: true });

  window.captioner = {
    // An element with these properties and children.
    element: (tag, fields, ...children) => {
      const made = Object.assign(document.createElement(tag), fields);
      made.append(...children);
      return made;
    },
  };
})();
