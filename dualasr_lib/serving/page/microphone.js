// The microphone as blocks of 16-bit samples at its own rate.
export class Microphone {
  static async open(onBlock) {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const made = new Microphone();
    try {
      made.stream = stream;
      made.context = new AudioContext();
      await made.context.audioWorklet.addModule("worklet.js");
      await made.context.resume();
      made.packer = new AudioWorkletNode(made.context, "packer", { numberOfOutputs: 0 });
      made.flushed = new Promise((done) => {
        made.packer.port.onmessage = ({ data }) => (data.flushed ? done() : onBlock(data.samples, data.loudest));
      });
      made.context.createMediaStreamSource(stream).connect(made.packer);
      return made;
    } catch (error) {
      await made.close();
      throw error;
    }
  }

  get rate() {
    return this.context.sampleRate;
  }

  // All blocks have been given when it returns.
  async flush() {
    this.packer.port.postMessage("flush");
    await Promise.race([this.flushed, new Promise((done) => setTimeout(done, 500))]);
  }

  async close() {
    for (const track of this.stream.getTracks()) track.stop();
    if (this.context && this.context.state !== "closed") await this.context.close();
  }
}
