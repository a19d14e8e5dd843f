afterEach(() => jest.dontMock('vega'));

test('without vega a chart says how to install it', async () => {
  jest.doMock('vega', () => {
    throw new Error("Cannot find package 'vega'");
  });
  await jest.isolateModulesAsync(async () => {
    const { renderChart } = await import('lib/report/charts.js');
    const spec = { mark: 'bar', data: { values: [] } } as const;
    await expect(renderChart(spec, 'nothing')).rejects.toMatchObject({
      name: 'ResidualSkipError',
      code: 'MISSING_DEPENDENCY',
      message: expect.stringContaining('npm install vega vega-lite'),
    });
  });
});
