// Packs what the microphone gives, 128 samples at a time, into 100 ms of 16-bit samples.
class Packer extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate / 10));
    this.filled = 0;
    this.loudest = 0;
    this.isOver = false;
    this.port.onmessage = () => {
      this.flush();
      this.port.postMessage({ flushed: true });
      this.isOver = true;
    };
  }

  flush() {
    if (!this.filled) return;
    const samples = this.block.slice(0, this.filled).buffer;
    this.port.postMessage({ samples, loudest: this.loudest }, [samples]);
    this.filled = 0;
    this.loudest = 0;
  }

  process(inputs) {
    const channels = inputs[0];
    if (this.isOver) return false;
    if (!channels.length) return true;
    for (let i = 0; i < channels[0].length; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const value = Math.max(-1, Math.min(1, sum / channels.length));
      this.loudest = Math.max(this.loudest, Math.abs(value));
      this.block[this.filled++] = Math.round(value * 32767);
      if (this.filled === this.block.length) this.flush();
    }
    return true;
  }
}

registerProcessor("packer", Packer);
